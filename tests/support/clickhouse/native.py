"""Blocks of the native protocol to ClickHouse's `Native` format and back, without decoding a value.

The two differ in little: on the wire a block begins with its info, and each column has a byte that says whether its
serialisation is a special one. The values are the same bytes, so this file only finds where each column ends; what the
bytes mean is left to the engine. A type whose end it cannot find is an error, never a guess.
"""

import re
import struct
from typing import NamedTuple

from support.clickhouse.wire import WITH_CUSTOM_SERIALIZATION, Feed, ProtocolError, int32, text, varint

_FIXED = {
    "UInt8": 1, "Int8": 1, "Bool": 1, "Enum8": 1, "Nothing": 1, "UInt16": 2, "Int16": 2, "Enum16": 2, "Date": 2,
    "UInt32": 4, "Int32": 4, "Float32": 4, "Date32": 4, "DateTime": 4, "IPv4": 4, "UInt64": 8, "Int64": 8, "Float64": 8,
    "DateTime64": 8, "UUID": 16, "IPv6": 16, "UInt128": 16, "Int128": 16, "UInt256": 32, "Int256": 32,
}  # fmt: skip
_CALL = re.compile(r"^(\w+)\((.*)\)$", re.DOTALL)
_ADDITIONAL_KEYS = 1 << 9
# Fields 1 (overflows) and 2 (bucket number) of the block's info, then the end.
BLOCK_INFO = varint(1) + b"\0" + varint(2) + int32(-1) + varint(0)
EMPTY_BLOCK = BLOCK_INFO + varint(0) + varint(0)


class Type(NamedTuple):
    """A type as far as its layout goes: a name and the types inside."""

    name: str
    inside: tuple["Type", ...] = ()
    width: int = 0


class Column(NamedTuple):
    """A column's name and type."""

    name: str
    type: str


class Block(NamedTuple):
    """A block without its info: the columns, the number of rows, and the block in the other side's framing."""

    columns: list[Column]
    rows: int
    framed: bytes


def parse_type(spec: str) -> Type:
    """Return the layout of a type.

    Raises:
        ProtocolError: it is not one whose end can be found.
    """
    spec = spec.strip()
    call = _CALL.match(spec)
    name, arguments = (call.group(1), _split(call.group(2))) if call else (spec, [])
    if name in _FIXED or name.startswith("Interval"):
        return Type("fixed", width=_FIXED.get(name, 8))
    if name == "String":
        return Type("String")
    if name == "FixedString":
        return Type("fixed", width=int(arguments[0]))
    if name == "Decimal":
        precision = int(arguments[0])
        return Type("fixed", width=4 if precision < 10 else 8 if precision < 19 else 16 if precision < 39 else 32)
    if name in ("Nullable", "Array", "LowCardinality"):
        return Type(name, (parse_type(arguments[0]),))
    if name == "SimpleAggregateFunction":
        return parse_type(arguments[1])
    if name == "Map":
        return Type("Array", (Type("Tuple", tuple(parse_type(part) for part in arguments)),))
    if name == "Tuple":
        return Type("Tuple", tuple(parse_type(_without_name(part)) for part in arguments))
    raise ProtocolError(f"the test server cannot carry columns of type {spec}: select something derived from it")


def _split(arguments: str) -> list[str]:
    parts, depth, quoted, start = [], 0, False, 0
    for at, character in enumerate(arguments):
        if character == "'" and arguments[at - 1] != "\\":
            quoted = not quoted
        if quoted:
            continue
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(arguments[start:at].strip())
            start = at + 1
    return [*parts, arguments[start:].strip()]


def _without_name(part: str) -> str:
    """Return a tuple's element without its name, which is a plain word or in backticks."""
    named = re.match(r"^(?:`[^`]+`|\w+)\s+(?=\w)", part)
    return part[named.end() :] if named else part


def _skip_prefix(feed: Feed, kind: Type) -> None:
    if kind.name == "LowCardinality":
        feed.skip(8)
    else:
        for inner in kind.inside:
            _skip_prefix(feed, inner)


def _skip_data(feed: Feed, kind: Type, rows: int) -> None:
    if kind.name == "fixed":
        feed.skip(rows * kind.width)
    elif kind.name == "String":
        feed.skip_strings(rows)
    elif kind.name == "Nullable":
        feed.skip(rows)
        _skip_data(feed, kind.inside[0], rows)
    elif kind.name == "Array":
        feed.skip(rows * 8)
        total = struct.unpack_from("<Q", feed.buffer, feed.position - 8)[0] if rows else 0
        _skip_data(feed, kind.inside[0], total)
    elif kind.name == "Tuple":
        for inner in kind.inside:
            _skip_data(feed, inner, rows)
    elif rows:
        _skip_low_cardinality(feed, kind.inside[0], rows)


def _skip_low_cardinality(feed: Feed, kind: Type, rows: int) -> None:
    flags = feed.unsigned(8)
    if not flags & _ADDITIONAL_KEYS:
        raise ProtocolError("a LowCardinality column without keys of its own: shared dictionaries are not carried")
    keys = kind.inside[0] if kind.name == "Nullable" else kind
    _skip_data(feed, keys, feed.unsigned(8))
    indexes = feed.unsigned(8)
    if indexes != rows:
        raise ProtocolError(f"a LowCardinality column has {indexes} indexes for {rows} rows")
    feed.skip(indexes * (1 << (flags & 0xFF)))


def _skip_info(feed: Feed) -> None:
    while field := feed.varint():
        if field not in (1, 2):
            raise ProtocolError(f"block info has a field {field}")
        feed.skip(1 if field == 1 else 4)


def from_wire(feed: Feed, revision: int) -> Block:
    """Read a block from the wire and return it in the `Native` format.

    Raises:
        ProtocolError: it cannot be read.
    """
    _skip_info(feed)
    return _reframe(feed, marked=revision >= WITH_CUSTOM_SERIALIZATION, mark=False)


def to_wire(feed: Feed, revision: int) -> Block:
    """Read a block in the `Native` format and return it as it goes over the wire, with its info."""
    block = _reframe(feed, marked=False, mark=revision >= WITH_CUSTOM_SERIALIZATION)
    return block._replace(framed=BLOCK_INFO + block.framed)


def _reframe(feed: Feed, marked: bool, mark: bool) -> Block:
    width, rows = feed.varint(), feed.varint()
    parts, columns = [varint(width), varint(rows)], []
    for _ in range(width):
        column = Column(feed.text(), feed.text())
        columns.append(column)
        if marked and feed.unsigned(1):
            raise ProtocolError(f"column {column.name} comes in a special serialisation, which is not carried")
        parts += [text(column.name), text(column.type), b"\0" if mark else b""]
        if rows:
            kind, start = parse_type(column.type), feed.position
            _skip_prefix(feed, kind)
            _skip_data(feed, kind, rows)
            parts.append(bytes(feed.buffer[start : feed.position]))
    return Block(columns, rows, b"".join(parts))


def header(columns: list[Column], revision: int) -> bytes:
    """Return a block of no rows, with its info, as it goes over the wire."""
    mark = b"\0" if revision >= WITH_CUSTOM_SERIALIZATION else b""
    described = b"".join(text(column.name) + text(column.type) + mark for column in columns)
    return BLOCK_INFO + varint(len(columns)) + varint(0) + described
