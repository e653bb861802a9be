"""The sink over TCP: what is in the log is in the store, once, whatever happens to the connection, server or sink."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingest.clock import DrivenClock, WallClock
from ingest.events import BootLoop, Bsod
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.rollouts import Bound, Rollout
from ingest.store.chdb import ChdbStore
from ingest.store.migrate import Migrator
from ingest.store.native import NativeStore
from ingest.store.queries import named_queries
from ingest.store.server import Server
from ingest.store.sink import Sink, SinkLimits
from ingest.topics import Topics
from support import native_store_child, store_child
from support.clickhouse.process import ClickHouseProcess
from support.store_fleet import BASE_MS, Fleet, counted, recount

ROOT = Path(__file__).parents[3]
POINTS = ("after-plan:2", "before-insert:3", "after-insert:4", "before-commit:2", "milliseconds:40")
VALUES = {
    "product": "Content", "from": "2024-07-19 00:00:00", "to": "2024-07-20 00:00:00", "rollout": "r-1", "limit": "10",
    "vendor": "CrowdStrike",
    "module": "",
    "since": "2024-07-05 00:00:00",
    "before": "2024-07-20 02:00:00",
    "young_from": "2024-07-05 00:00:00",
    "parts": "1",
    "part": "0",
}  # fmt: skip

MakeSink = Callable[..., Sink]


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseProcess]:
    with ClickHouseProcess(tmp_path_factory.mktemp("clickhouse") / "data") as process:
        yield process


@pytest.fixture
def native(clickhouse: ClickHouseProcess, database: str) -> Iterator[NativeStore]:
    """An empty, migrated store over TCP."""
    clickhouse.order("clear")
    store = NativeStore(Server("127.0.0.1", clickhouse.port, timeout_seconds=10), database)
    Migrator(store).apply()
    yield store
    store.close()


def test_migrations_over_tcp_are_applied_once_and_leave_the_same_tables(native: NativeStore, store: ChdbStore) -> None:
    assert Migrator(native).apply() == []
    assert all(status.applied and status.applied_at for status in Migrator(native).status())
    asked = (
        "SELECT table, name, type, default_expression FROM system.columns WHERE database = currentDatabase()"
        " ORDER BY table, position"
    )
    assert native.query(asked).rows == store.query(asked).rows


def test_aggregates_equal_a_recount(
    native: NativeStore, log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any
) -> None:
    fleet = make_fleet(21)
    sink = make_sink(native)
    for _ in range(3):
        log.append(fleet.entries(topics, batches=20, size=25))
        sink.drain()
    assert counted(native) == recount(fleet.made)
    crashes = sum(isinstance(report, Bsod | BootLoop) for report in fleet.made)
    assert native.query("SELECT count() FROM crashes FINAL").rows == [[crashes]]


@pytest.mark.parametrize("table", ["sink_blocks", "crashes", "check_in_minutes"])
@pytest.mark.parametrize("moment", ["within", "before", "after", "fail"])
def test_a_connection_lost_in_mid_insert_loses_and_doubles_nothing(
    moment: str, table: str, native: NativeStore, log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any,
    clickhouse: ClickHouseProcess, metrics: Metrics,
) -> None:  # fmt: skip
    fleet = make_fleet(22)
    log.append(fleet.entries(topics, batches=15, size=20))
    for count in ("1", "2"):
        clickhouse.order(f"{moment} {count} {table}")
    make_sink(native).drain()
    assert metrics.value("store_failures_total") == 2
    assert counted(native) == recount(fleet.made)


def test_a_server_that_falls_silent_after_it_wrote_doubles_nothing(
    native: NativeStore, log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any,
    clickhouse: ClickHouseProcess, database: str, metrics: Metrics,
) -> None:  # fmt: skip
    fleet = make_fleet(23)
    log.append(fleet.entries(topics, batches=15, size=20))
    hasty = NativeStore(Server("127.0.0.1", clickhouse.port, timeout_seconds=0.5), database)
    clickhouse.order("stall 1 crashes 1.0")
    make_sink(hasty).drain()
    hasty.close()
    assert metrics.value("store_failures_total") >= 1
    assert counted(native) == recount(fleet.made)


def test_redelivery_after_a_lost_commit_doubles_nothing(
    native: NativeStore, log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any
) -> None:
    fleet = make_fleet(24)
    sources = list(make_sink(native)._decode)
    for _ in range(3):
        log.append(fleet.entries(topics, batches=10, size=20))
        make_sink(native).drain()
        log.commit("store", dict.fromkeys(sources, 0))
    make_sink(native).drain()
    assert counted(native) == recount(fleet.made)


@pytest.mark.fault
def test_a_server_killed_and_started_again_in_mid_run_has_every_row_once(
    tmp_path: Path, topics: Topics, metrics: Metrics
) -> None:
    """The sink's thread runs on: it asks again until ClickHouse is back."""
    log = MemoryLog(topic_specs(topics), DrivenClock(BASE_MS))
    fleet = Fleet(25)
    with ClickHouseProcess(tmp_path / "data") as process:
        store = NativeStore(Server("127.0.0.1", process.port, connect_seconds=1, timeout_seconds=10), "cordon")
        Migrator(store).apply()
        limits = SinkLimits(
            rows_max=40, read_records_max=2, linger_seconds=0.01, backoff_seconds=0.01, backoff_seconds_max=0.1
        )
        sink = Sink(log, store, topics, metrics, DrivenClock(BASE_MS), limits)
        thread = threading.Thread(target=sink.run)
        thread.start()
        try:
            for _ in range(3):
                before = process.inserts()
                log.append(fleet.entries(topics, batches=25, size=20))
                wait_until(lambda before=before: process.inserts() > before + 4)  # type: ignore[misc]  # See Sink.
                process.kill()
                failures = metrics.value("store_failures_total")
                wait_until(lambda failures=failures: metrics.value("store_failures_total") > failures)  # type: ignore[misc]  # As above.
                process.restart()
            wait_until(lambda: log.committed("store", next(iter(sink._decode))) is not None)
            expected = recount(fleet.made)
            wait_until(lambda: counted(store) == expected)
        finally:
            sink.stop()
            thread.join(30)
        assert not thread.is_alive()
        assert counted(store) == expected
        store.close()


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until it holds, or fail."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        pause.wait(0.02)
    raise AssertionError("it did not come to hold in time")


def run_child(log: Path, port: int, point: str) -> int:
    """Run the sink in a process of its own and return how it ended."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    command = [sys.executable, str(Path(native_store_child.__file__)), str(log), str(port), point]
    done = subprocess.run(
        command, check=False, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_sigkill_of_the_sink_between_any_two_steps_loses_and_doubles_nothing(
    tmp_path: Path, clickhouse: ClickHouseProcess
) -> None:
    fleet = Fleet(42)
    log = EmbeddedLog(tmp_path / "log", topic_specs(store_child.TOPICS), WallClock())
    log.append(fleet.entries(store_child.TOPICS, batches=150, size=20))
    log.close()
    clickhouse.order("clear")
    ends = [run_child(tmp_path / "log", clickhouse.port, point) for point in POINTS]
    assert ends[:4] == [-signal.SIGKILL] * 4
    assert run_child(tmp_path / "log", clickhouse.port, "none") == 0
    store = NativeStore(Server("127.0.0.1", clickhouse.port), "cordon")
    assert counted(store) == recount(fleet.made)
    crashes = sum(isinstance(report, Bsod | BootLoop) for report in fleet.made)
    assert store.query("SELECT count() FROM crashes FINAL").rows == [[crashes]]
    store.close()


def test_every_named_query_gives_the_rows_that_chdb_gives(
    native: NativeStore, store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any
) -> None:
    log.append(make_fleet(11).entries(topics, batches=10, size=30))
    said = {"rollout": "r-1", "vendor": "CrowdStrike", "product": "Content", "version": "291"}
    rollout = Rollout(**said, update_kind="content", origin_ms=BASE_MS, bound=Bound.OFFERED)  # type: ignore[arg-type]  # Fields by name.
    verdict = {
        **said, "sentence": "because", "at_ms": BASE_MS, "verdict": "regressed", "decision": "kill", "policy": "p",
        "reason": "kill_evidence",
        "evidence": {"log10_evidence": 7.5, "log10_evidence_max": 7.5, "log10_needed_to_hold": 3,
                     "log10_needed_to_kill": 6, "tolerated_ratio": 1.5, "crashes_exposed": 9, "methods": []},
        "recovery": {"silent": 3, "looping": 0, "recovered": 2,
                     "rows": [{"ring": "canary", "tenant": "#5e", "silent": 3, "recovered": 2}]},
    }  # fmt: skip
    log.append([Entry(topics.name("rollouts"), 0, b"r-1", msgspec.json.encode(rollout))])
    log.append([Entry(topics.name("verdicts"), 0, b"r-1", msgspec.json.encode(verdict))])
    make_sink(native).drain()
    make_sink(store).recover()
    other = make_sink(store)
    other.drain()
    assert counted(native) == counted(store) != {}
    for name, query in named_queries().items():
        given = {parameter.name: VALUES[parameter.name] for parameter in query.parameters}
        over_tcp, in_process = native.query(query.sql, given), store.query(query.sql, given)
        assert over_tcp == in_process, name
        assert over_tcp.rows or name in ("alerts_latest", "killswitch_history")
