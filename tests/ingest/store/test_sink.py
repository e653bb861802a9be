"""The sink: what is in the log is in the store, once, whatever happens in between."""

import base64
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ingest.clock import DrivenClock
from ingest.events import BootLoop, Bsod
from ingest.log.interface import Entry, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.rollouts import Bound, Ring, Rollout
from ingest.store.chdb import ChdbStore
from ingest.store.interface import MemoryStore, StoreError, StoreMismatchError
from ingest.store.sink import GROUP, Sink, SinkLimits
from ingest.topics import Topics
from support.store_fleet import BASE_MS, counted, recount

MakeSink = Callable[..., Sink]


def scalar(store: ChdbStore, sql: str) -> Any:
    return store.query(sql).rows[0][0]


@pytest.mark.parametrize("seed", range(2))
def test_aggregates_equal_a_recount(
    seed: int, store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any
) -> None:
    fleet = make_fleet(seed)
    sink = make_sink(store)
    for _ in range(4):
        log.append(fleet.entries(topics, batches=20, size=25))
        sink.drain()
    assert counted(store) == recount(fleet.made)
    crashes = [report for report in fleet.made if isinstance(report, Bsod | BootLoop)]
    assert scalar(store, "SELECT count() FROM crashes FINAL") == len(crashes)
    devices = len({report.device for report in crashes})
    assert scalar(store, "SELECT uniqMerge(devices) FROM crash_minutes") == devices


def test_a_crash_row_is_the_report(
    store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any
) -> None:
    fleet = make_fleet(1)
    log.append(fleet.entries(topics, batches=1, size=60))
    make_sink(store).drain()
    loop = next(report for report in fleet.made if isinstance(report, BootLoop))
    row = store.query(
        "SELECT device, seq, toUnixTimestamp64Milli(at), boots, os_family, bugcheck, parameters, frames, signature,"
        " versions.product, versions.version FROM crashes FINAL WHERE seq = {seq:UInt64}",
        {"seq": loop.seq},
    ).rows[0]
    assert row == [
        loop.device, loop.seq, loop.at_ms, loop.boots, loop.os_build.split(".")[0], loop.bugcheck, loop.parameters,
        ["csagent.sys+0xe14ed"], f"{loop.module}|{loop.bugcheck:#x}", [v.product for v in loop.versions],
        [v.version for v in loop.versions],
    ]  # fmt: skip


@pytest.mark.parametrize("table", ["crashes", "installs", "check_in_minutes", "version_crash_minutes"])
def test_a_block_written_but_not_acknowledged_is_not_doubled(
    table: str, store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any
) -> None:
    """An insert that took effect and then failed is written again; its rows and their aggregates stay single."""

    class Flaky:
        """A store whose acknowledgement of some inserts is lost."""

        def __init__(self) -> None:
            self.lost = 2

        def insert(self, name: str, columns: Any) -> None:
            store.insert(name, columns)
            if name == ("crashes" if table == "version_crash_minutes" else table) and self.lost:
                self.lost -= 1
                raise StoreError("lost")

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    fleet = make_fleet(5)
    log.append(fleet.entries(topics, batches=30, size=20))
    flaky = Flaky()
    make_sink(flaky).drain()
    assert flaky.lost == 0
    assert counted(store) == recount(fleet.made)


def test_overlapping_redelivery_after_a_lost_commit_doubles_nothing(
    store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any
) -> None:
    """A sink that died after its insert and before its commit reads the same offsets again, then new ones."""
    fleet = make_fleet(6)
    for _ in range(3):
        log.append(fleet.entries(topics, batches=10, size=20))
        make_sink(store).drain()
        log.commit(GROUP, dict.fromkeys(log_sources(topics), 0))
    log.append(fleet.entries(topics, batches=10, size=20))
    make_sink(store).drain()
    assert counted(store) == recount(fleet.made)


def log_sources(topics: Topics) -> list[TopicPartition]:
    return [
        TopicPartition(topics.name(word), partition)
        for word in ("crashes", "activity")
        for partition in range(topics.device_partitions)
    ]


def test_a_planned_block_that_never_came_is_written_at_start(
    store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any, metrics: Metrics
) -> None:
    """A kill right after the plan: nothing of the block is in the store, and the start brings all of it."""
    fleet = make_fleet(7)
    log.append(fleet.entries(topics, batches=10, size=20))

    class PlanOnlyError(Exception):
        """Stands for the kill."""

    class Dying:
        def insert(self, name: str, columns: Any) -> None:
            if name != "sink_blocks":
                raise PlanOnlyError
            store.insert(name, columns)

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    with pytest.raises(PlanOnlyError):
        make_sink(Dying()).drain()
    assert scalar(store, "SELECT count() FROM crashes") == 0
    make_sink(store)
    assert counted(store) == recount(fleet.made)


def test_failing_inserts_are_counted_and_tried_again(
    log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any, metrics: Metrics
) -> None:
    fleet = make_fleet(8)
    log.append(fleet.entries(topics, batches=2, size=50))
    twin = MemoryStore()
    sink = make_sink(twin)
    for _ in range(3):
        twin.fail_next_insert()
    sink.drain()
    assert metrics.value("store_failures_total") == 3
    assert metrics.value("backlog_records", stage="store") == 0
    assert len(twin.rows("crashes")) == sum(isinstance(report, Bsod | BootLoop) for report in fleet.made)


def test_the_buffer_is_bounded_and_the_log_keeps_the_rest(
    log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any
) -> None:
    log.append(make_fleet(9).entries(topics, batches=60, size=20))
    twin = MemoryStore()
    sink = make_sink(twin, SinkLimits(rows_max=50, read_records_max=1))
    sink.drain()
    sizes = [
        sum(len(columns["block"]) for _, columns in group)
        for group in _blocks(twin)
    ]  # fmt: skip
    assert len(sizes) > 5
    assert max(sizes) <= 50 + 20


def _blocks(twin: MemoryStore) -> list[list[tuple[str, dict[str, list[Any]]]]]:
    """Split what was inserted at the plans."""
    groups: list[list[tuple[str, dict[str, list[Any]]]]] = []
    for table, columns in twin.blocks:
        if table == "sink_blocks":
            groups.append([])
        else:
            groups[-1].append((table, columns))
    return groups


def test_offsets_are_committed_after_the_insert(
    log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any
) -> None:
    source = TopicPartition(topics.name("crashes"), 0)
    log.append(make_fleet(3).entries(topics, batches=12, size=20))
    twin = MemoryStore()
    sink = make_sink(twin)
    sink.step()
    assert log.committed(GROUP, source) is None
    sink.flush()
    assert log.committed(GROUP, source) == log.bounds(source)[1] > 0


def test_poison_records_are_dead_lettered_and_the_good_reports_kept(
    store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any, metrics: Metrics
) -> None:
    fleet = make_fleet(10)
    entries = fleet.entries(topics, batches=1, size=80)
    crash, activity = entries[0], entries[2]
    assert crash.value is not None
    assert activity.value is not None
    good = msgspec.json.decode(crash.value)
    spoilt = {**good, "reports": [{**good["reports"][0], "at_ms": "noon"}, *good["reports"], {"kind": "odd"}]}
    framed = {**good, "reports": [{**good["reports"][0], "frames": [{"module": 7}]}]}
    poison = [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b'{"kind":"batch"}', b'{"kind":"strange"}', b"null"]
    for value in [*poison, msgspec.json.encode(framed)]:
        log.append([Entry(crash.topic, 0, None, value)])
    log.append([Entry(crash.topic, 0, None, msgspec.json.encode(spoilt)), activity])
    log.append([Entry(topics.name("verdicts"), 0, b"r", b'{"rollout": 1}')])
    log.append([Entry(topics.name("verdicts"), 0, b"r", None)])
    log.append([Entry(topics.name("killswitch"), 0, b"r", b'{"payload": "!!", "payloadType": "x", "signatures": []}')])
    make_sink(store).drain()
    assert counted(store) == recount(fleet.made)
    dead = [msgspec.json.decode(r.value or b"") for r in log.read(TopicPartition(topics.name("deadletter"), 0), 0)]
    assert Counter(letter["reason"] for letter in dead) == {
        "unreadable": len(poison) + 2,
        "unreadable_report": 2,
    }
    spoilt_letter = next(letter for letter in dead if "2 of" in letter["detail"])
    assert "report 0" in spoilt_letter["detail"]
    assert (spoilt_letter["topic"], spoilt_letter["partition"]) == (crash.topic, 0)
    assert max(len(letter["value"]) for letter in dead) <= 8192 * 4 / 3 + 4
    assert metrics.value("deadletters_total", reason="unreadable") == len(poison) + 2


def test_a_flood_of_poison_costs_a_bounded_number_of_letters(
    log: MemoryLog, topics: Topics, make_sink: MakeSink, metrics: Metrics
) -> None:
    log.append([Entry(topics.name("activity"), 0, None, b"junk")] * 500)
    make_sink(MemoryStore()).drain()
    source = TopicPartition(topics.name("deadletter"), 0)
    dead = log.read(source, 0)
    assert len(dead) == 100
    assert msgspec.json.decode(dead[-1].value or b"")["dropped"] == 400
    assert metrics.value("deadletters_total", reason="unreadable") == 500


def test_history_is_kept_as_it_was_said(store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: MakeSink) -> None:
    rollout = Rollout(
        rollout="r-1", vendor="CrowdStrike", product="Content", update_kind="content", version="291", origin_ms=BASE_MS,
        bound=Bound.DECLARED, rings=[Ring(name="canary", starts_at_ms=BASE_MS)], pushed_devices=3, declared_by="ops",
    )  # fmt: skip
    evidence = {
        "log10_evidence": 7.5, "log10_evidence_max": 7.5, "log10_needed_to_hold": 3, "log10_needed_to_kill": 6,
        "tolerated_ratio": 1.5, "crashes_exposed": 9,
        "methods": [{"name": "rate_ratio", "log10_evidence": 8, "weight": 1}],
    }  # fmt: skip
    said = {"rollout": "r-1", "vendor": "CrowdStrike", "product": "Content", "version": "291", "sentence": "because"}
    verdict = {
        **said, "at_ms": BASE_MS, "verdict": "regressed", "decision": "kill", "reason": "kill_evidence",
        "evidence": evidence, "policy": "p",
    }  # fmt: skip
    switch = {
        **said, "number": 1, "lane": "live", "state": "killed", "previous_state": "watching", "decision": "kill",
        "cause": "detector", "reason": "kill_evidence", "watermark_ms": BASE_MS, "decided_ms": BASE_MS + 5,
        "evidence": evidence,
    }  # fmt: skip
    payload = base64.b64encode(msgspec.json.encode({"id": "x", "data": switch})).decode()
    envelope = msgspec.json.encode({"payload": payload, "payloadType": "t", "signatures": [{"keyid": "k", "sig": "s"}]})
    log.append(
        [
            Entry(topics.name("rollouts"), 0, b"r-1", msgspec.json.encode(rollout)),
            Entry(topics.name("verdicts"), 0, b"r-1", msgspec.json.encode(verdict)),
            Entry(topics.name("killswitch"), 0, b"r-1", envelope),
        ]
    )
    make_sink(store).drain()
    assert store.query("SELECT rings.name, pushed_devices, bound FROM rollouts").rows == [[["canary"], 3, "declared"]]
    assert store.query("SELECT decision, log10_evidence, crashes_exposed, rate_ratio FROM verdicts").rows == [
        ["kill", 7.5, 9, None]
    ]
    assert store.query("SELECT number, state, key_ids, log10_evidence, envelope FROM killswitch").rows == [
        [1, "killed", ["k"], 7.5, envelope.decode()]
    ]


def test_a_gap_left_by_retention_is_said_aloud(
    topics: Topics, metrics: Metrics, caplog: pytest.LogCaptureFixture, make_fleet: Any
) -> None:
    clock = DrivenClock(BASE_MS)
    log = MemoryLog(topic_specs(topics), clock)
    sink = Sink(log, MemoryStore(), topics, metrics, clock)
    sink.recover()
    log.append(make_fleet(2).entries(topics, batches=5, size=5))
    clock.drive_to(BASE_MS + 100 * 3_600_000)
    log.append(make_fleet(2).entries(topics, batches=5, size=5))
    log.maintain()
    sink.drain()
    assert "retention took offsets" in caplog.text
    assert metrics.value("deadletters_total", reason="log_gap") > 0


def test_a_store_filled_from_another_log_is_refused(
    store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: MakeSink, make_fleet: Any, metrics: Metrics
) -> None:
    log.append(make_fleet(2).entries(topics, batches=5, size=5))
    make_sink(store).drain()
    other = MemoryLog(topic_specs(topics), DrivenClock(BASE_MS))
    with pytest.raises(StoreMismatchError, match="filled from another log"):
        Sink(other, store, topics, metrics, DrivenClock(BASE_MS)).run()


def test_the_thread_copies_until_told_to_stop(
    log: MemoryLog, topics: Topics, make_fleet: Any, metrics: Metrics
) -> None:
    twin = MemoryStore()
    sink = Sink(log, twin, topics, metrics, DrivenClock(BASE_MS), SinkLimits(linger_seconds=0.01))
    thread = threading.Thread(target=sink.run)
    thread.start()
    fleet = make_fleet(4)
    log.append(fleet.entries(topics, batches=5, size=20))
    done = threading.Event()
    for _ in range(200):
        if len(twin.rows("crashes")) == sum(isinstance(report, Bsod | BootLoop) for report in fleet.made):
            break
        done.wait(0.02)
    sink.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert len(twin.rows("crashes")) == sum(isinstance(report, Bsod | BootLoop) for report in fleet.made)
