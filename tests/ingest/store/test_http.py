"""The read-only endpoint: it speaks ClickHouse's protocol, and refuses to do anything but read."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ingest.metrics import Metrics
from ingest.store.chdb import ChdbStore
from ingest.store.http import PENDING_MAX, application
from ingest.store.interface import StoreBusyError
from ingest.store.migrate import Migrator
from ingest.store.reader import ChdbReader, ReadLimits

LIMITS = ReadLimits(
    wait_seconds=0.1, execution_seconds_max=3, result_rows_max=1000, result_bytes_max=100_000, memory_bytes_max=64 << 20
)
# Slow by the work on each row: a cheaper one reads 20 GiB on a fast machine before its time is over.
SLOW = "SELECT count() FROM numbers(1000000000000) WHERE SHA512(toString(number)) = ''"
Ask = Callable[..., httpx2.Response]


@pytest.fixture(scope="module")
def filled(engine: ChdbStore, engine_path: Path) -> Iterator[ChdbStore]:
    """A migrated database with three rows, two of which are one block written twice."""
    store = ChdbStore(engine_path, "cordon")
    Migrator(store).apply()
    for block in (1, 1, 2):
        store.insert("check_in_minutes", {"minute": [60], "tenant": ["acme"], "block": [block], "check_ins": [5]})
    yield store
    store.close()


@pytest.fixture(scope="module")
def reader(filled: ChdbStore, engine_path: Path) -> Iterator[ChdbReader]:
    reader = ChdbReader(engine_path, "cordon", LIMITS)
    yield reader
    reader.close()


@pytest.fixture
def ask(reader: ChdbReader, metrics: Metrics) -> Ask:
    """Send one request to the application, in process."""

    def send(sql: str = "", method: str = "GET", path: str = "/", content: bytes = b"", **parameters: str) -> Any:
        async def request() -> httpx2.Response:
            transport = httpx2.ASGITransport(app=application(reader, metrics))
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                query = ({"query": sql} if sql else {}) | parameters
                return await client.request(method, path, params=query, content=content)

        return asyncio.run(request())

    return send


def test_ping_and_an_empty_request_say_ok(ask: Ask) -> None:
    assert ask(path="/ping").text == "Ok.\n"
    assert ask().text == "Ok.\n"


def test_a_redelivered_block_is_read_once(ask: Ask) -> None:
    """The endpoint sets `final`, so whoever forgets FINAL still reads exact numbers."""
    assert ask("SELECT sum(check_ins) FROM check_in_minutes").text == "10\n"


def test_query_by_get_by_post_and_by_both(ask: Ask) -> None:
    assert ask("SELECT 1").text == "1\n"
    assert ask(method="POST", content=b"SELECT 1 AS x FORMAT JSONCompact").json()["data"] == [[1]]
    assert ask("SELECT 2", method="POST", content=b"FORMAT CSVWithNames").text == '"2"\n2\n'


def test_formats_and_their_headers(ask: Ask) -> None:
    answer = ask("SELECT 1 AS x", default_format="JSONEachRow")
    assert (answer.json(), answer.headers["X-ClickHouse-Format"]) == ({"x": 1}, "JSONEachRow")
    assert answer.headers["X-ClickHouse-Timezone"] == "UTC"
    assert ask("SELECT 1 AS x FORMAT JSON;").headers["Content-Type"].startswith("application/json")
    assert ask("SELECT 1", default_format="Native").content[:2] == b"\x01\x01"


def test_parameters_are_values_not_text(ask: Ask) -> None:
    assert ask("SELECT {x:UInt8} + 1", param_x="4").text == "5\n"
    assert ask("SELECT {x:String}", param_x="'; DROP TABLE crashes").text == "'; DROP TABLE crashes\n".replace(
        "'", "\\'"
    )
    refused = ask("SELECT {x:UInt8}", param_x="4; SELECT 1")
    assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (400, "457")


def test_database_is_chosen_per_request(ask: Ask) -> None:
    assert ask("SELECT currentDatabase()", database="system").text == "system\n"
    assert ask("SELECT currentDatabase()").text == "cordon\n"
    assert ask("SELECT 1", database="x; DROP DATABASE cordon").status_code == 400
    assert ask("SELECT 1", database="nowhere").status_code == 404


def test_what_clients_ask_at_the_start(ask: Ask) -> None:
    """clickhouse-connect and Grafana begin with these; their own settings in the address are not applied."""
    assert ask("SELECT version(), timezone()", send_progress_in_http_headers="1", session_id="a").status_code == 200
    assert ask("SELECT name, value, readonly FROM system.settings LIMIT 5", default_format="Native").status_code == 200
    assert "crashes" in ask("SHOW TABLES").text
    assert "minute" in ask("DESCRIBE TABLE check_in_minutes").text
    assert ask("EXPLAIN SELECT 1").status_code == 200
    assert ask("WITH 1 AS x SELECT x").status_code == 200
    assert ask("SELECT 1 -- nothing; here\n").text == "1\n"


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO crashes (device) VALUES ('x')",
        "CREATE TABLE x (a UInt8) ENGINE = Memory",
        "DROP TABLE crashes",
        "ALTER TABLE crashes DELETE WHERE 1",
        "TRUNCATE TABLE crashes",
        "OPTIMIZE TABLE crashes",
        "SYSTEM SHUTDOWN",
        "KILL QUERY WHERE 1",
        "USE system",
        "SET readonly = 0",
        "exit",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE crashes",
        "WITH 1 AS x INSERT INTO crashes (seq) SELECT x",
        "EXPLAIN SELECT * FROM remote('127.0.0.1', 'system.one')",
    ],
)
def test_anything_but_reading_is_refused(ask: Ask, filled: ChdbStore, sql: str) -> None:
    answer = ask(sql)
    assert answer.status_code == 403, answer.text
    assert filled.query("SELECT count() FROM crashes").rows == [[0]]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM file('{path}', 'CSV')",
        "SELECT file('{path}')",
        "SELECT FILE /* x */ ('{path}')",
        "SELECT `file`('{path}')",
        "SELECT \"file\"('{path}')",
        "SELECT arrayMap(file, ['{path}'])",
        "SELECT * APPLY(file) FROM (SELECT '{path}' AS x)",
        "DESCRIBE file('{path}')",
        "DESCRIBE TABLE url('http://127.0.0.1:9/x')",
        "SELECT * FROM url('http://127.0.0.1:9/x', 'CSV')",
        "SELECT * FROM s3('http://127.0.0.1:9/bucket/x', 'CSV')",
        "SELECT * FROM remote('127.0.0.1:9', 'system.one')",
        "SELECT * FROM cluster('default', 'system.one')",
        "SELECT * FROM executable('x.sh', 'CSV', 'a Int')",
        "SELECT * FROM python(secret)",
        "SELECT * FROM sqlite('{path}', 't')",
        "SELECT 1 INTO OUTFILE '{out}'",
        "SELECT 1 INTO/**/outfile '{out}' FORMAT CSV",
        "SELECT $$x$$ INTO OUTFILE '{out}'",
        "SELECT \u2018x\u2019 INTO OUTFILE '{out}'",
        "SELECT 1.file('{path}')",
        "SELECT 'a\\' , file('{path}')",
    ],
)
def test_files_and_the_network_are_out_of_reach(ask: Ask, tmp_path: Path, sql: str) -> None:
    secret, out = tmp_path / "secret.csv", tmp_path / "out.csv"
    secret.write_text("hunter2\n")
    answer = ask(sql.replace("{path}", str(secret)).replace("{out}", str(out)))
    assert answer.status_code in (400, 403), answer.text
    assert "hunter2" not in answer.text
    assert not out.exists()


def test_the_engine_itself_refuses_without_the_guard(reader: ChdbReader) -> None:
    """Writes and file tables are not refused by text alone: a session of the reader is locked."""
    session = reader._all[0]
    for sql in (
        "INSERT INTO cordon.crashes (seq) VALUES (1)",
        "SELECT * FROM file('/etc/hostname', 'CSV')",
        "SET readonly = 0",
    ):
        with pytest.raises(Exception, match="READONLY"):
            session.query(sql)


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELECT * FROM numbers(2000)", 413, "396"),
        ("SELECT repeat('x', 200000)", 413, "396"),
        ("SELECT groupArray(number) FROM numbers(100000000)", 507, "241"),
        (SLOW, 408, "159"),
        ("SELECT nonsense", 404, "47"),
        ("SELEC 1", 403, "164"),
        ("SELECT 1 +", 400, "62"),
        ("SELECT * FROM missing", 404, "60"),
        ("SELECT '" + "x" * 70_000 + "'", 403, "164"),
    ],
)
def test_bounds_and_errors_have_codes(ask: Ask, sql: str, status: int, code: str) -> None:
    answer = ask(method="POST", content=sql.encode())
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (status, code), answer.text


def test_a_body_beyond_all_bounds_is_not_read(ask: Ask) -> None:
    assert ask(method="POST", content=b"x" * (1 << 20)).status_code == 413
    assert ask(method="POST", content=b"\xff\xfe\x00").status_code == 403


def test_at_most_so_many_queries_at_once(reader: ChdbReader, ask: Ask, metrics: Metrics) -> None:
    started = threading.Barrier(3)

    def occupy() -> None:
        started.wait()
        with pytest.raises(Exception, match="TIMEOUT"):
            reader.read(SLOW, "CSV", {}, "")

    threads = [threading.Thread(target=occupy) for _ in range(2)]
    for thread in threads:
        thread.start()
    started.wait()
    threading.Event().wait(0.2)
    with pytest.raises(StoreBusyError):
        reader.read("SELECT 1", "CSV", {}, "")
    answer = ask("SELECT 1")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert metrics.value("queries_total", result="busy") == 1
    for thread in threads:
        thread.join()
    assert ask("SELECT 1").text == "1\n"


def test_block_compression_is_refused_aloud(ask: Ask) -> None:
    answer = ask("SELECT 1", compress="1")
    assert (answer.status_code, "compression to none" in answer.text) == (403, True)
    assert ask("SELECT 1", compress="0").text == "1\n"


def test_queries_that_wait_are_bounded_too(metrics: Metrics) -> None:
    release = threading.Event()

    class Slow:
        def read(self, sql: str, form: str, parameters: Any, database: str) -> bytes:
            release.wait(10)
            return b"1\n"

    async def crowd() -> list[int]:
        transport = httpx2.ASGITransport(app=application(Slow(), metrics))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            asked = [asyncio.create_task(client.get("/", params={"query": "SELECT 1"})) for _ in range(PENDING_MAX + 4)]
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            assert all(task.result().status_code == 503 for task in done)
            release.set()
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert sorted(asyncio.run(crowd())) == [200] * PENDING_MAX + [503] * 4


def test_other_host_names_are_not_answered(reader: ChdbReader, metrics: Metrics) -> None:
    """A page in a browser that points its own name at loopback gets nothing."""

    async def request() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=application(reader, metrics))
        async with httpx2.AsyncClient(transport=transport, base_url="http://evil.example") as client:
            return await client.get("/", params={"query": "SELECT 1"})

    assert asyncio.run(request()).status_code == 400
