"""The test server keeps to the protocol: ClickHouse's own client gets along with it, and so do older revisions.

If the server had been written from what clickhouse-driver happens to send, a test of the driver against it would prove
little. chdb's `remote()` is ClickHouse's native client, and asks and sends what the driver never does.
"""

import socket
from collections.abc import Iterator

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException

from ingest.store.chdb import ChdbStore
from ingest.store.interface import StoreError
from support.clickhouse.frames import LZ4, ZSTD, frames, unframed
from support.clickhouse.native import parse_type
from support.clickhouse.process import ClickHouseProcess
from support.clickhouse.wire import Feed, ProtocolError, text, varint

AUTHENTICATION_FAILED = 516
TABLE = """
CREATE TABLE kinds.t
(
    n UInt64 DEFAULT 7, word LowCardinality(Nullable(String)), at DateTime64(3, 'UTC'), fixed FixedString(3),
    list Array(LowCardinality(String)), pairs Array(Tuple(`a b` String, y Nullable(UInt8))),
    map Map(String, Array(UInt8)), small Decimal(9, 2), large Decimal(38, 3),
    kind Enum8('one' = 1, 'two, (2)' = 2), id UUID, ip IPv6, flag Bool
)
ENGINE = MergeTree ORDER BY n
"""
VALUES = (
    "(1, 'w', '2024-07-19 04:09:00.123', 'abc', ['x', 'y'], [('p', NULL), ('q', 1)], {'k': [1, 2]}, 1.5, -2.125, 'one',"
    " '61f0c404-5cb3-11e7-907b-a6006ad3dba0', '::1', true),"
    " (2, NULL, 0, '', [], [], {}, 0, 0, 'two, (2)', '00000000-0000-0000-0000-000000000000', '::', false)"
)


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseProcess]:
    with ClickHouseProcess(tmp_path_factory.mktemp("clickhouse") / "data") as process:
        client = Client("127.0.0.1", port=process.port)
        client.execute("CREATE DATABASE kinds")
        client.execute(TABLE)
        client.disconnect()
        yield process


def test_clickhouses_own_client_writes_and_reads_every_kind_of_column(
    engine: ChdbStore, clickhouse: ClickHouseProcess
) -> None:
    there = f"remote('127.0.0.1:{clickhouse.port}', kinds.t)"
    engine.execute(f"INSERT INTO FUNCTION {there} VALUES {VALUES}")
    engine.execute(TABLE.replace("CREATE TABLE kinds.t", "CREATE OR REPLACE TABLE t"))
    engine.execute(f"INSERT INTO t VALUES {VALUES}")
    assert engine.query(f"SELECT * FROM {there} ORDER BY n").rows == engine.query("SELECT * FROM t ORDER BY n").rows
    assert engine.query(f"SELECT n, count() AS c FROM {there} WHERE word IS NULL GROUP BY n").rows == [[2, 1]]
    engine.execute(f"INSERT INTO FUNCTION {there} (n, word) SELECT number + 10, toString(number) FROM numbers(150000)")
    assert engine.query(f"SELECT count() FROM {there}").rows == [[150_002]]
    assert engine.query(f"SELECT n FROM {there} WHERE 0").rows == []


def test_clickhouses_own_client_is_told_what_went_wrong(engine: ChdbStore, clickhouse: ClickHouseProcess) -> None:
    there = f"'127.0.0.1:{clickhouse.port}', kinds.t"
    with pytest.raises(StoreError, match="Authentication failed") as caught:
        engine.query(f"SELECT 1 FROM remote({there}, 'default', 'wrong')")
    assert caught.value.code == AUTHENTICATION_FAILED
    with pytest.raises(StoreError, match="non-zero"):
        engine.query(f"SELECT throwIf(n >= 0) FROM remote({there})")


@pytest.mark.parametrize(
    ("revision", "compression"),
    [(revision, "lz4") for revision in (54429, 54441, 54449, 54453, 54454, 54459, 54462, 54464, 54468)]
    + [(54429, False), (54468, False), (54468, "zstd")],
)
def test_both_sides_speak_the_older_ones_revision(
    revision: int, compression: bool | str, clickhouse: ClickHouseProcess
) -> None:
    client = Client("127.0.0.1", port=clickhouse.port, client_revision=revision, compression=compression)
    client.execute("CREATE TABLE IF NOT EXISTS kinds.r (n UInt64, w String) ENGINE = MergeTree ORDER BY n")
    client.execute("TRUNCATE TABLE kinds.r")
    assert client.execute("INSERT INTO kinds.r (n, w) VALUES", [(1, "a"), (2, "b" * 3_000_000)]) == 2
    assert client.execute("SELECT n, length(w) FROM kinds.r ORDER BY n") == [(1, 1), (2, 3_000_000)]
    with pytest.raises(ServerException):
        client.execute("SELECT nosuch")
    client.disconnect()


def test_a_query_that_is_cancelled_ends(clickhouse: ClickHouseProcess) -> None:
    client = Client("127.0.0.1", port=clickhouse.port)
    progress = client.execute_with_progress("SELECT number FROM numbers(100000000000)")
    next(progress)
    client.cancel()
    assert client.execute("SELECT 1") == [(1,)]
    client.disconnect()


def test_session_statements_hold_for_their_connection(clickhouse: ClickHouseProcess) -> None:
    client, other = (Client("127.0.0.1", port=clickhouse.port) for _ in range(2))
    client.execute("USE kinds")
    client.execute("SET max_threads = 1")
    asked = "SELECT currentDatabase(), getSetting('max_threads') = 1, getSetting('max_block_size')"
    assert client.execute(asked, settings={"max_block_size": 77}) == [("kinds", 1, 77)]
    assert client.execute(asked)[0][:2] == ("kinds", 1)
    assert client.execute(asked)[0][2] != 77
    assert other.execute("SELECT currentDatabase()") == [("default",)]
    client.disconnect()
    other.disconnect()


def test_nonsense_is_refused(clickhouse: ClickHouseProcess) -> None:
    for sent in (
        b"GET / HTTP/1.1\r\n\r\n",
        varint(0) + text("old") + varint(1) + varint(1) + varint(50_000) + text("") * 3,
    ):
        with socket.create_connection(("127.0.0.1", clickhouse.port), 10) as client:
            client.sendall(sent)
            assert b"DB::NetException" in client.makefile("rb").read()


@pytest.mark.parametrize("method", [LZ4, ZSTD])
def test_a_frame_that_was_changed_on_the_way_is_refused(method: int) -> None:
    data = b"some data " * 300_000
    framed = frames(data, method)
    feed, whole = filled(framed), b""
    while feed.available():
        whole += unframed(feed)
    assert whole == data
    # In the checksum, the method and the data; a wrong size only asks for bytes that do not come.
    for at in (3, 16, 40):
        spoilt = filled(framed[:at] + bytes([framed[at] ^ 1]) + framed[at + 1 :])
        with pytest.raises(ProtocolError):
            unframed(spoilt)


def filled(data: bytes) -> Feed:
    feed = Feed(lambda: pytest.fail("the frame asks for more bytes than it has"))
    feed.buffer += data
    return feed


@pytest.mark.parametrize("kind", ["AggregateFunction(uniq, String)", "Dynamic", "Variant(String, UInt8)", "Nonsense"])
def test_a_type_whose_end_cannot_be_found_is_never_guessed(kind: str) -> None:
    with pytest.raises(ProtocolError, match="cannot carry"):
        parse_type(kind)
