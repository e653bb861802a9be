"""Plain Python columns to the Arrow table that ClickHouse reads, by the types its own table has.

Called by the chdb store for every insert. The invariant: one Arrow batch per insert, so that materialised views see a
block whole; a type this file does not know is an error, never a guess.
"""

import re

import pyarrow as pa

from ingest.store.interface import Columns, StoreError

_PLAIN = {
    "String": pa.string(),
    "UInt8": pa.uint8(),
    "UInt32": pa.uint32(),
    "UInt64": pa.uint64(),
    "Int64": pa.int64(),
    "Float64": pa.float64(),
    "DateTime": pa.timestamp("s", "UTC"),
    "DateTime64": pa.timestamp("ms", "UTC"),
}
_TRANSPARENT = {"LowCardinality", "Nullable"}
_CALL = re.compile(r"^(\w+)\((.*)\)$", re.DOTALL)


def arrow_type(clickhouse_type: str) -> pa.DataType:
    """Return the Arrow type in which ClickHouse reads a column of `clickhouse_type`.

    Raises:
        StoreError: the type is not one that Cordon's tables use.
    """
    text = clickhouse_type.strip()
    if text in _PLAIN:
        return _PLAIN[text]
    call = _CALL.match(text)
    if call is not None:
        name, inside = call.groups()
        if name in _TRANSPARENT:
            return arrow_type(inside)
        if name == "Array":
            return pa.list_(arrow_type(inside))
        if name == "Tuple":
            fields = (part.strip().split(" ", 1) for part in _split(inside))
            return pa.struct([(field.strip("`"), arrow_type(of)) for field, of in fields])
        if name == "SimpleAggregateFunction":
            return arrow_type(_split(inside)[1])
        if name in ("DateTime", "DateTime64"):
            return _PLAIN[name]
    raise StoreError(f"no Arrow type for {clickhouse_type!r}: add it to ingest/store/arrow.py")


def _split(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def field_of(name: str, clickhouse_type: str) -> pa.Field:
    """Return the Arrow field of a column, which may hold None only where ClickHouse's may hold NULL.

    Raises:
        StoreError: the type is not one that Cordon's tables use.
    """
    nullable = clickhouse_type.startswith(("Nullable(", "LowCardinality(Nullable("))
    return pa.field(name, arrow_type(clickhouse_type), nullable)


def rows_of(columns: Columns, fields: dict[str, pa.Field]) -> pa.Table:
    """Return the columns as an Arrow table of one batch.

    Raises:
        StoreError: a column is not in the table, or a value does not fit its type.
    """
    try:
        arrays = [pa.array(values, fields[name].type) for name, values in columns.items()]
        # The engine would take a None for the column's default; over the network it is an error, so it is one here.
        holes = [name for name, array in zip(columns, arrays, strict=True) if array.null_count]
        if refused := [name for name in holes if not fields[name].nullable]:
            raise StoreError(f"column {refused[0]} holds a None and may not: give a value")
        return pa.Table.from_batches([pa.RecordBatch.from_arrays(arrays, names=list(columns))])
    except KeyError as error:
        raise StoreError(f"the table has no column {error}: is a migration missing?") from error
    # A plain ValueError is what columns of unlike lengths give.
    except (ValueError, pa.ArrowTypeError, OverflowError) as error:
        raise StoreError(f"a value does not fit its column: {error}") from error
