"""Columns to Arrow: known types only, and values that fit."""

import pyarrow as pa
import pytest

from ingest.store.arrow import arrow_type, field_of, rows_of
from ingest.store.interface import StoreError


@pytest.mark.parametrize(
    ("clickhouse", "arrow"),
    [
        ("LowCardinality(String)", pa.string()),
        ("DateTime64(3, 'UTC')", pa.timestamp("ms", "UTC")),
        ("SimpleAggregateFunction(max, DateTime('UTC'))", pa.timestamp("s", "UTC")),
        (
            "Array(Tuple(a String, `b` Nullable(Float64)))",
            pa.list_(pa.struct([("a", pa.string()), ("b", pa.float64())])),
        ),
    ],
)
def test_types_of_the_tables(clickhouse: str, arrow: pa.DataType) -> None:
    assert arrow_type(clickhouse) == arrow


@pytest.mark.parametrize("unknown", ["Int128", "Map(String, String)", "AggregateFunction(uniq, String)", ""])
def test_an_unknown_type_is_never_guessed(unknown: str) -> None:
    with pytest.raises(StoreError, match="no Arrow type"):
        arrow_type(unknown)


def test_a_value_or_column_that_does_not_fit_is_an_error() -> None:
    fields = {"a": field_of("a", "UInt32")}
    for columns in ({"a": [-1]}, {"a": [1, None]}, {"a": ["x"]}, {"a": [2**40]}, {"b": [1]}):
        with pytest.raises(StoreError):
            rows_of(columns, fields)
