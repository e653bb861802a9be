"""What clickhouse-driver decodes to what ClickHouse's JSON would say, by the column's type.

Called by the native store for every answer, so that callers see the same rows from any store: times as text in the zone
of their column, arrays as lists, named tuples as objects. The invariant: a value of a type without a rule is handed on
as the driver gave it.
"""

import math
import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import numpy as np

Converter = Callable[[Any], Any]
_CALL = re.compile(r"^(\w+)\((.*)\)$", re.DOTALL)
_TRANSPARENT = {"LowCardinality": 0, "SimpleAggregateFunction": 1}
_TEXT = {"UUID", "IPv4", "IPv6"}


def converter(clickhouse_type: str) -> Converter | None:
    """Return what turns a value of this type into its textual form; None where it is that already."""
    call = _CALL.match(clickhouse_type.strip())
    name, inside = (call[1], call[2]) if call else (clickhouse_type.strip(), "")
    if name in _TRANSPARENT:
        return converter(_split(inside)[_TRANSPARENT[name]])
    if name == "Nullable":
        return _or_none(converter(inside))
    if name == "Array":
        return _array(converter(inside))
    if name == "Map":
        return _map(converter(_split(inside)[1]))
    if name == "Tuple":
        return _tuple(_split(inside))
    return _scalar(name, inside)


def _scalar(name: str, inside: str) -> Converter | None:
    if name == "DateTime":
        return _moment(0)
    if name == "DateTime64":
        return _moment(int(_split(inside)[0]))
    if name in ("Date", "Date32"):
        return _day
    if name in _TEXT:
        return str
    if name == "String":
        return _readable
    if name == "Float64":
        return _finite
    if name == "Float32":
        return _short
    if name.startswith("Decimal"):
        return float
    return None


def _moment(digits: int) -> Converter:
    def text(value: datetime) -> str:
        whole = value.replace(tzinfo=None).isoformat(" ", "microseconds")
        return whole[: 19 + (digits + 1 if digits else 0)].ljust(20 + digits if digits else 19, "0")

    return text


def _day(value: date) -> str:
    return value.isoformat()


def _readable(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(value: float) -> float | None:
    return float(str(np.float32(value))) if math.isfinite(value) else None


def _or_none(inner: Converter | None) -> Converter | None:
    if inner is None:
        return None
    return lambda value: None if value is None else inner(value)


def _array(inner: Converter | None) -> Converter:
    if inner is None:
        return list
    return lambda values: [inner(value) for value in values]


def _map(inner: Converter | None) -> Converter:
    of = inner or (lambda value: value)
    return lambda values: {str(key): of(value) for key, value in values.items()}


def _tuple(parts: list[str]) -> Converter:
    named = [re.match(r"^(`[^`]+`|\w+)\s+(?=\w)", part) for part in parts]
    inner = [
        converter(part[found.end() :] if found else part) or (lambda value: value)
        for part, found in zip(parts, named, strict=True)
    ]
    if not all(named):
        return lambda values: [of(value) for of, value in zip(inner, values, strict=True)]
    names = [found[1].strip("`") for found in named if found]
    return lambda values: {name: of(value) for name, of, value in zip(names, inner, values, strict=True)}


def _split(text: str) -> list[str]:
    """Split at commas outside brackets and quotes."""
    parts, depth, quoted, start = [], 0, False, 0
    for at, character in enumerate(text):
        quoted ^= character == "'"
        depth += 0 if quoted else (character == "(") - (character == ")")
        if character == "," and depth == 0 and not quoted:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]


def converted(rows: list[tuple[Any, ...]], types: list[str]) -> list[list[Any]]:
    """Return the rows with every value in its textual form."""
    rules = [(at, rule) for at, rule in enumerate(map(converter, types)) if rule is not None]
    out = [list(row) for row in rows]
    for row in out:
        for at, rule in rules:
            row[at] = rule(row[at])
    return out
