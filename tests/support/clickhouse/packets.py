"""Packets of the native protocol, read and written by revision: handshake, query, and what a server says in between.

The order and the conditions of each field are those of ClickHouse's `TCPHandler` and `ClientInfo`.
"""

import struct
import time
from dataclasses import dataclass, field

from support.clickhouse.engine import Setting
from support.clickhouse.native import BLOCK_INFO
from support.clickhouse.wire import (
    S_EXCEPTION,
    S_HELLO,
    S_PROFILE_EVENTS,
    S_PROFILE_INFO,
    S_PROGRESS,
    WITH_CUSTOM_SERIALIZATION,
    WITH_DISTRIBUTED_DEPTH,
    WITH_INITIAL_QUERY_START_TIME,
    WITH_INTERSERVER_SECRET,
    WITH_INTERSERVER_SECRET_V2,
    WITH_OPENTELEMETRY,
    WITH_PARALLEL_REPLICAS,
    WITH_PARAMETERS,
    WITH_PASSWORD_COMPLEXITY_RULES,
    WITH_QUERY_TIME_IN_PROGRESS,
    WITH_TOTAL_BYTES_IN_PROGRESS,
    Feed,
    int32,
    text,
    uint64,
    varint,
)

_IMPORTANT = 1
_INTERFACE_TCP = 1


@dataclass
class Hello:
    """What a client says first."""

    client: str
    revision: int
    database: str
    user: str
    password: str


@dataclass
class Query:
    """What a client asks."""

    id: str
    settings: list[Setting]
    stage: int
    compressed: bool
    sql: str
    parameters: dict[str, str] = field(default_factory=dict)

    def setting(self, name: str, default: str) -> str:
        """Return the value of a setting of this query."""
        return next((one.value for one in self.settings if one.name == name), default)


def read_hello(feed: Feed) -> Hello:
    """Read the client's greeting, behind its packet type."""
    client = feed.text()
    feed.varint()
    feed.varint()
    return Hello(client, feed.varint(), feed.text(), feed.text(), feed.text())


def server_hello(revision: int, own: int, version: str) -> bytes:
    """Return the server's greeting."""
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    out = varint(S_HELLO) + text("ClickHouse") + varint(major) + varint(minor) + varint(own)
    out += text("UTC") + text("cordon-test") + varint(patch)
    if revision >= WITH_PASSWORD_COMPLEXITY_RULES:
        out += varint(0)
    if revision >= WITH_INTERSERVER_SECRET_V2:
        out += uint64(time.time_ns())
    return out


def read_query(feed: Feed, revision: int) -> Query:
    """Read a query, behind its packet type."""
    query_id = feed.text()
    _skip_client_info(feed, revision)
    settings = _settings(feed)
    if revision >= WITH_INTERSERVER_SECRET:
        feed.text()
    stage, compressed, sql = feed.varint(), bool(feed.varint()), feed.text()
    parameters = {}
    if revision >= WITH_PARAMETERS:
        parameters = {one.name: _undumped(one.value) for one in _settings(feed)}
    return Query(query_id, settings, stage, compressed, sql, parameters)


def _skip_client_info(feed: Feed, revision: int) -> None:
    if feed.unsigned(1) == 0:
        return
    for _ in range(3):
        feed.text()
    if revision >= WITH_INITIAL_QUERY_START_TIME:
        feed.skip(8)
    tcp = feed.unsigned(1) == _INTERFACE_TCP
    if tcp:
        for _ in range(3):
            feed.text()
        for _ in range(3):
            feed.varint()
    feed.text()
    if revision >= WITH_DISTRIBUTED_DEPTH:
        feed.varint()
    if tcp:
        feed.varint()
    if revision >= WITH_OPENTELEMETRY and feed.unsigned(1):
        feed.skip(24)
        feed.text()
        feed.skip(1)
    if revision >= WITH_PARALLEL_REPLICAS:
        for _ in range(3):
            feed.varint()


def _settings(feed: Feed) -> list[Setting]:
    found = []
    while name := feed.text():
        important = bool(feed.varint() & _IMPORTANT)
        found.append(Setting(name, feed.text(), important))
    return found


def _undumped(value: str) -> str:
    """Return the text of a parameter, which comes as ClickHouse dumps a string: quoted, escaped with backslashes."""
    if len(value) < 2 or value[0] != "'" or value[-1] != "'":
        return value
    escapes = {"b": "\b", "f": "\f", "r": "\r", "n": "\n", "t": "\t", "0": "\0", "a": "\a", "v": "\v"}
    out, characters = [], iter(value[1:-1])
    for character in characters:
        if character == "\\":
            character = next(characters, "")
            character = escapes.get(character, character)
        out.append(character)
    return "".join(out)


def exception(code: int, message: str) -> bytes:
    """Return an exception without a nested one."""
    return varint(S_EXCEPTION) + int32(code) + text("DB::Exception") + text(message) + text("") + b"\0"


def progress(rows: int, data_bytes: int, elapsed_ns: int, revision: int) -> bytes:
    """Return the progress since the last one."""
    out = varint(S_PROGRESS) + varint(rows) + varint(data_bytes) + varint(0)
    if revision >= WITH_TOTAL_BYTES_IN_PROGRESS:
        out += varint(0)
    out += varint(0) + varint(0)
    if revision >= WITH_QUERY_TIME_IN_PROGRESS:
        out += varint(elapsed_ns)
    return out


def profile_info(rows: int, blocks: int, data_bytes: int) -> bytes:
    """Return what the whole answer amounted to."""
    return varint(S_PROFILE_INFO) + varint(rows) + varint(blocks) + varint(data_bytes) + b"\0" + varint(0) + b"\0"


def profile_events(name: str, value: int, revision: int) -> bytes:
    """Return a block of one counter, as the server sends them: never compressed."""
    now = int(time.time())
    cells = [
        ("host_name", "String", text("cordon-test")),
        ("current_time", "DateTime", struct.pack("<I", now)),
        ("thread_id", "UInt64", uint64(0)),
        ("type", "Enum8('increment' = 1, 'gauge' = 2)", struct.pack("<b", 1)),
        ("name", "String", text(name)),
        ("value", "Int64", struct.pack("<q", value)),
    ]
    mark = b"\0" if revision >= WITH_CUSTOM_SERIALIZATION else b""
    columns = b"".join(text(column) + text(kind) + mark + data for column, kind, data in cells)
    return varint(S_PROFILE_EVENTS) + text("") + BLOCK_INFO + varint(len(cells)) + varint(1) + columns
