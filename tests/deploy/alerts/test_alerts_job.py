"""The alerts job on a real store: one alert for a storm, over restarts, rivals and failures; none without a past."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.alerts.job import AlertsJob
from deploy.alerts.source import ReaderRows, Rows, StoreRows, complete_until, first_hour, hours, signatures
from detectors.alerts.wire import Alert, AlertsStatus, alert_decoder, is_alert_key
from ingest.clock import DrivenClock
from ingest.log.interface import Entry, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.store.chdb import ChdbStore
from ingest.store.interface import StoreError
from ingest.store.migrate import Migrator
from ingest.store.queries import named_queries
from ingest.store.reader import ChdbReader
from ingest.store.sink import Sink
from ingest.topics import Topics
from support.pattern_fleet import BEGIN_MS, HOUR_MS, crash_entries, quiet, rollout_entries, storm

QUIET_HOURS = 96


class Rig:
    """A log, a store and what a job needs, in one lane."""

    def __init__(self, path: Path, lane: str) -> None:
        self.topics = Topics(lane=lane, device_partitions=1)
        self.clock = DrivenClock(BEGIN_MS)
        self.log = MemoryLog(topic_specs(self.topics), self.clock)
        self.store = ChdbStore(path, f"cordon_{lane}")
        Migrator(self.store).apply()
        self.metrics = Metrics()
        self.sink = Sink(self.log, self.store, self.topics, self.metrics, self.clock)
        self.sink.recover()

    def put(self, entries: list[Entry]) -> None:
        self.log.append(entries)
        self.sink.drain()

    def job(self, **more: Any) -> AlertsJob:
        return AlertsJob(self.log, self.topics, StoreRows(self.store), self.metrics, every_seconds=1, **more)

    def records(self) -> list[tuple[bytes | None, bytes | None]]:
        return [(one.key, one.value) for one in self.log.read(TopicPartition(self.topics.name("alerts"), 0), 0, 10_000)]

    def alerts(self) -> list[Alert]:
        decoded = [alert_decoder.decode(value) for key, value in self.records() if is_alert_key(key) and value]
        return [one for one in decoded if isinstance(one, Alert)]

    def status(self) -> AlertsStatus:
        (*_, last) = [alert_decoder.decode(value) for key, value in self.records() if key == b"status" and value]
        assert isinstance(last, AlertsStatus)
        return last

    def stored(self) -> list[dict[str, Any]]:
        self.sink.drain()
        found = self.store.query(named_queries()["alerts_latest"].sql, {"limit": 100})
        return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Rig]]:
    """Make rigs, each in a lane of one store folder."""
    path, rigs = tmp_path_factory.mktemp("store"), list[Rig]()

    def made(lane: str) -> Rig:
        rigs.append(Rig(path, lane))
        return rigs[-1]

    yield made
    for rig in rigs:
        rig.store.close()


def later(rig: Rig, hour: int) -> None:
    """Let the store hear of something, so that the hours before it are complete."""
    rig.put(crash_entries(rig.topics, storm(hour, 1, "disk.sys", 0x7A, first=90_000)))


def test_a_storm_is_one_alert_in_log_store_and_metrics_and_stays_one(make: Callable[[str], Rig]) -> None:
    rig = make("storm")
    assert first_hour(StoreRows(rig.store)) is None
    assert complete_until(StoreRows(rig.store)) <= 0
    rig.job().turn()
    assert rig.records() == []
    rig.put(crash_entries(rig.topics, quiet(QUIET_HOURS)))
    rig.job().turn()
    assert rig.alerts() == []
    assert rig.status().ready
    rig.put(crash_entries(rig.topics, storm(QUIET_HOURS, 25)))
    rig.job().turn()
    # The hour of the storm is not over yet.
    assert rig.alerts() == []
    later(rig, QUIET_HOURS + 2)
    rig.job().turn()
    (alert,) = rig.alerts()
    assert (alert.pattern, alert.crashes, alert.devices_most, alert.tenants_most) == ("contoso.sys|0x50", 25, 25, 3)
    assert rig.metrics.value("alerts_open") == 1
    # Looked at again, by another process, after a restart: it is said already.
    rig.job().turn()
    rig.job().turn()
    assert len(rig.alerts()) == 1
    (row,) = rig.stored()
    assert (row["alert"], row["state"], int(row["crashes"])) == (alert.alert, "open", 25)
    assert row["sentence"] == alert.sentence
    later(rig, QUIET_HOURS + 12)
    rig.job().turn()
    assert [(one.alert, one.state.value) for one in rig.alerts()] == [(alert.alert, "open"), (alert.alert, "ended")]
    assert [(row["state"], row["ended"]) for row in rig.stored()] == [("ended", "quiet")]
    assert rig.metrics.value("alerts_open") == 0


def test_a_fresh_store_has_no_alerts_but_says_what_is_lacking(make: Callable[[str], Rig]) -> None:
    rig = make("fresh")
    rig.put(crash_entries(rig.topics, storm(0, 400)))
    later(rig, 3)
    rig.job().turn()
    assert rig.alerts() == []
    assert rig.status().sentence.startswith("not enough history to tell what is usual: 2 of 48 hours")


def test_what_a_rollout_reached_is_that_rollouts(make: Callable[[str], Rig]) -> None:
    rig = make("rollout")
    fallen = storm(QUIET_HOURS, 30)
    devices = [int(report.device, 16) for report in fallen]
    rig.put(crash_entries(rig.topics, quiet(QUIET_HOURS)))
    rig.put(rollout_entries(rig.topics, devices, BEGIN_MS + (QUIET_HOURS - 1) * HOUR_MS))
    rig.put(crash_entries(rig.topics, fallen))
    later(rig, QUIET_HOURS + 2)
    hour = BEGIN_MS // HOUR_MS + QUIET_HOURS
    rows = hours(StoreRows(rig.store), hour, hour + 1)[hour]
    assert [dict(row.on_rollouts) for row in rows if row.signature == "contoso.sys|0x50"] == [{"contoso/vpn 2.0": 30}]
    rig.job().turn()
    assert rig.alerts() == []
    assert rig.status().tests > 0


def test_the_reader_and_the_store_give_the_same_rows(make: Callable[[str], Rig]) -> None:
    rig = make("same")
    rig.put(crash_entries(rig.topics, quiet(30)))
    reader = ChdbReader(rig.store.path, rig.store.database)
    try:
        ways: list[Rows] = [StoreRows(rig.store), ReaderRows(reader, rig.store.database)]
        first = first_hour(ways[0])
        assert first is not None
        assert (first, complete_until(ways[0])) == (first_hour(ways[1]), complete_until(ways[1]))
        assert complete_until(ways[0]) - first in (29, 30)
        assert hours(ways[0], first, first + 24) == hours(ways[1], first, first + 24)
        assert sum(row.crashes for rows in hours(ways[0], first, first + 24).values() for row in rows) > 50
        found = signatures(ways[0], first + 24)
        assert found == signatures(ways[1], first + 24)
        assert {one.name for one in found} >= {"nvlddmkm.sys|0x116", "netwtw10.sys|0xd1"}
        assert all(one.frames and one.devices for one in found)
    finally:
        reader.close()


def test_another_jobs_claim_ends_this_ones_writing_and_the_state_goes_on(make: Callable[[str], Rig]) -> None:
    rig, now = make("fenced"), [0.0]
    rig.put(crash_entries(rig.topics, quiet(QUIET_HOURS)))
    first, second = rig.job(monotonic=lambda: now[0]), rig.job()
    first.turn()
    rig.put(crash_entries(rig.topics, storm(QUIET_HOURS, 25)))
    later(rig, QUIET_HOURS + 2)
    second.turn()
    assert len(rig.alerts()) == 1
    before = len(rig.records())
    later(rig, QUIET_HOURS + 4)
    # It judges from its memory, is refused by the log, rests, and takes up what the other wrote.
    first.turn()
    assert len(rig.records()) == before
    first.turn()
    assert len(rig.records()) == before
    now[0] = 61.0
    first.turn()
    assert len(rig.records()) > before
    assert len(rig.alerts()) == 1


def test_who_may_not_run_claims_nothing(make: Callable[[str], Rig]) -> None:
    rig = make("other")
    rig.put(crash_entries(rig.topics, quiet(QUIET_HOURS)))
    rig.job(may_run=lambda: False).turn()
    assert rig.records() == []


def test_a_store_or_log_that_fails_is_tried_again_and_nothing_is_said_twice(
    make: Callable[[str], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make("failing")
    rig.put(crash_entries(rig.topics, [*quiet(QUIET_HOURS), *storm(QUIET_HOURS, 25)]))
    later(rig, QUIET_HOURS + 2)
    job = rig.job()
    with monkeypatch.context() as broken:
        broken.setattr(rig.store, "query", _raise(StoreError("away")))
        job.turn()
    with monkeypatch.context() as broken:
        broken.setattr(rig.log, "append", _raise(RuntimeError("a bug")))
        job.turn()
    assert rig.records() == []
    assert rig.metrics.value("alerts_failures_total") == 2
    job.turn()
    assert len(rig.alerts()) == 1


def _raise(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail
