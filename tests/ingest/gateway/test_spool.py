"""The spool: what is acknowledged while the log behind is away or slow reaches it later, in order, within bounds."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.clock import DrivenClock
from ingest.gateway.spool.calm import CALM_SECONDS_MAX, CALM_SECONDS_MIN, Calm
from ingest.gateway.spool.log import SpoolingLog
from ingest.gateway.spool.store import Spool
from ingest.log.interface import Entry, LogError, LogFullError, LogUnavailableError, UnknownTopicError
from ingest.log.memory import MemoryLog
from ingest.metrics import Metrics
from support.log_contract import SPECS, START_MS, TOMBSTONE_MS, Backend, Capabilities, LogContract
from support.spool_rig import NOW_MS, TOPICS, AwayLog, entry, eventually, spooling, ticks


class TestSpoolingLog(LogContract):
    """Before a log that works, it is that log."""

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        clock = DrivenClock(START_MS)

        behind = MemoryLog(SPECS, clock, TOMBSTONE_MS)

        class Spooling(SpoolingLog):
            def maintain(self) -> None:
                behind.maintain()

        def opened() -> SpoolingLog:
            nonlocal behind
            behind = MemoryLog(SPECS, clock, TOMBSTONE_MS)
            return Spooling(behind, Spool(tmp_path, 1 << 20, TOPICS, clock), Metrics(), after_seconds=10)

        backend = Backend(clock, Capabilities(durable=False), opened)
        yield backend
        backend.close()


def test_a_log_that_works_is_appended_to_directly(tmp_path: Path) -> None:
    behind, metrics = AwayLog(), Metrics()
    log = spooling(tmp_path, behind, metrics=metrics)
    assert log.append([entry("activity", "a"), entry("crashes", "c")]) == [0, 0]
    assert log.append([entry("activity", "b")]) == [1]
    assert (log.state(), log.spool.stored_bytes, metrics.value("spooled_total")) == (None, 0, 0)
    log.close()


def test_what_the_log_refuses_for_good_is_not_spooled(tmp_path: Path) -> None:
    log = spooling(tmp_path, AwayLog())
    with pytest.raises(UnknownTopicError):
        log.append([Entry("no.such.topic", 0, None, b"x")])
    assert log.state() is None
    assert log.append([entry("activity", "a")]) == [0]
    log.close()


def test_flushes_are_taken_while_the_log_is_away_and_drained_crashes_first(tmp_path: Path) -> None:
    behind, metrics, clock = AwayLog(), Metrics(), DrivenClock(NOW_MS)
    log = spooling(tmp_path, behind, metrics=metrics, clock=clock)
    behind.unavailable = True
    for number in range(5):
        assert log.append([entry("activity", f"a{number}"), entry("crashes", f"c{number}")]) == [-1, -1]
    clock.drive_to(NOW_MS + 7000)
    state = log.state()
    assert state is not None
    assert state.waiting_bytes == log.spool.stored_bytes > 0
    assert (state.oldest_seconds, state.full) == (7.0, False)
    eventually(lambda: metrics.value("spool_oldest_seconds") == 7.0)
    assert metrics.value("spool_bytes") == state.waiting_bytes
    assert metrics.value("spooled_total") == 5
    behind.unavailable = False
    eventually(lambda: log.spool.empty)
    assert behind.values("activity") == [b"a0", b"a1", b"a2", b"a3", b"a4"]
    assert behind.values("crashes") == [b"c0", b"c1", b"c2", b"c3", b"c4"]
    words = [one.topic for call in behind.calls for one in call]
    assert words == [TOPICS.name("crashes")] * 5 + [TOPICS.name("activity")] * 5
    eventually(lambda: metrics.value("spool_drained_total") == 5 and metrics.value("spool_bytes") == 0)
    assert metrics.value("spool_oldest_seconds") == 0
    log.close()


def test_a_slow_append_is_acknowledged_from_the_spool_and_may_be_there_twice(tmp_path: Path) -> None:
    behind = AwayLog()
    log = spooling(tmp_path, behind, after_seconds=0.1)
    behind.go.clear()
    started = time.monotonic()
    assert log.append([entry("activity", "a")]) == [-1]
    assert 0.1 <= time.monotonic() - started < 1.0
    started = time.monotonic()
    assert log.append([entry("activity", "b")]) == [-1]
    assert time.monotonic() - started < 0.1, "only the first one waits"
    behind.go.set()
    eventually(lambda: log.spool.empty)
    assert behind.values("activity") == [b"a", b"a", b"b"]
    log.close()


def test_an_append_that_was_never_begun_happens_once(tmp_path: Path) -> None:
    """The producer hangs in an earlier append, the spool was full then, and calm has been assumed since."""
    behind, now = AwayLog(), [0.0]
    log = spooling(tmp_path, behind, after_seconds=0.05, bytes_max=1000, monotonic=lambda: now[0])
    behind.go.clear()
    with pytest.raises(LogFullError):
        log.append([entry("activity", random.Random(1).randbytes(2000))])
    now[0] = 1000.0
    assert log.append([entry("activity", "b")]) == [-1]
    behind.go.set()
    eventually(lambda: log.spool.empty)
    assert behind.values("activity")[1:] == [b"b"]
    log.close()


def test_a_restart_drains_what_is_left_before_anything_new(tmp_path: Path) -> None:
    behind = AwayLog()
    behind.unavailable = True
    log = spooling(tmp_path, behind)
    log.append([entry("activity", "a"), *ticks(NOW_MS)])
    log.append([entry("activity", "b"), *ticks(NOW_MS + 250)])
    log._behind = AwayLog()  # closing closes the log behind too, and this one is needed
    log.close()
    again = spooling(tmp_path, behind)
    assert again.state() is not None
    assert again.spool.known.read()[1] == NOW_MS + 250
    assert again.append([entry("activity", "c")]) == [-1]
    behind.unavailable = False
    eventually(lambda: again.spool.empty)
    kept = [value for value in behind.values("activity") if len(value) == 1]
    assert kept == [b"a", b"b", b"c"]
    again.close()


def test_a_full_spool_refuses_and_keeps_its_bound_and_takes_again_after_a_drain(tmp_path: Path) -> None:
    behind, bytes_max = AwayLog(), 200_000
    log = spooling(tmp_path, behind, bytes_max=bytes_max)
    behind.unavailable = True
    chance, taken = random.Random(3), []

    def fill() -> None:
        while True:
            value = chance.randbytes(3000)
            log.append([entry("activity", value)])
            taken.append(value)
            assert log.spool.stored_bytes <= bytes_max

    with pytest.raises(LogFullError, match="spool is full"):
        fill()
    assert 60 <= len(taken) <= 66, "nearly all of the bound is used"
    state = log.state()
    assert state is not None
    assert state.full
    # A small flush still fits, and says that the spool takes again.
    assert log.append([entry("activity", "small")]) == [-1]
    behind.unavailable = False
    eventually(lambda: log.spool.empty)
    assert behind.values("activity") == [*taken, b"small"]
    assert log.append([entry("activity", chance.randbytes(100_000))]) == [-1], "there is room again"
    log.close()


def test_the_disk_is_given_back(tmp_path: Path) -> None:
    behind = AwayLog()
    behind.unavailable = True
    log = spooling(tmp_path, behind, bytes_max=1 << 30)
    chance = random.Random(4)
    for _ in range(130):
        log.append([entry("activity", chance.randbytes(1 << 20))])
    before = log.spool._log.disk_bytes()
    assert before > 120 << 20
    behind.unavailable = False
    eventually(lambda: log.spool.empty, 60)
    log.spool.tidy()
    log.spool._log._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert log.spool._log.disk_bytes() < 70 << 20
    log.close()


def test_a_large_flush_is_spooled_in_pieces_and_counted_once(tmp_path: Path) -> None:
    behind, metrics = AwayLog(), Metrics()
    log = spooling(tmp_path, behind, metrics=metrics)
    behind.unavailable = True
    chance = random.Random(5)
    values = [chance.randbytes(900_000) for _ in range(12)]
    log.append([*(entry("activity", value) for value in values), entry("crashes", "c")])
    behind.unavailable = False
    eventually(lambda: log.spool.empty)
    assert behind.values("activity") == values
    assert max(sum(len(one.value or b"") for one in call) for call in behind.calls) < 5 << 20
    eventually(lambda: metrics.value("spool_drained_total") == 1)
    log.close()


def test_a_flush_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    behind = AwayLog()
    log = spooling(tmp_path, behind, bytes_max=50_000)
    behind.unavailable = True
    with pytest.raises(LogFullError):
        log.append([entry("crashes", "c"), entry("activity", random.Random(6).randbytes(60_000))])
    behind.unavailable = False
    log.append([entry("activity", "after")])
    eventually(lambda: log.spool.empty)
    assert (behind.values("activity"), behind.values("crashes")) == ([b"after"], [])
    log.close()


def test_what_the_log_refuses_stays_in_the_spool_until_it_is_taken(tmp_path: Path) -> None:
    """A topic that somebody deleted must not cost what was acknowledged."""
    behind = AwayLog()
    log = spooling(tmp_path, behind)
    behind.unavailable = True
    log.append([entry("activity", "a")])
    for _ in range(3):
        behind.refuse_next_append(UnknownTopicError("no such topic, as a test ordered"))
    behind.unavailable = False
    eventually(lambda: log.spool.empty)
    assert behind.values("activity") == [b"a"]
    log.close()


def test_a_slow_log_is_not_returned_to_before_it_has_kept_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each return to a log that is still slow would hold up an append, with every post in it, until it times out."""
    behind, now = AwayLog(), [0.0]
    log = spooling(tmp_path, behind, after_seconds=0.1, monotonic=lambda: now[0])
    behind.seconds = 0.12

    def append_and_drain() -> None:
        log.append([entry("activity", "x")])
        now[0] += 0.25
        eventually(lambda: log.spool.empty)

    for _ in range(30):
        append_and_drain()
    timed_out = [record for record in caplog.records if "the log is slow" in record.message]
    assert len(timed_out) == 2, "in 7.5 s of a slow log: the first append, and one trial after five"
    behind.seconds = 0.0
    for _ in range(400):
        append_and_drain()
        if log.state() is None:
            break
    assert log.state() is None, "it has kept up for long enough"
    log.close()


def test_calm_doubles_with_each_return_that_was_too_early() -> None:
    now = [0.0]
    calm = Calm(1.0, lambda: now[0])
    assert calm
    needed = []
    for _ in range(6):
        calm.disturbed()
        since = now[0]
        while not calm:
            now[0] += 0.5
        needed.append(now[0] - since)
        now[0] += 1.0
    assert needed == [10.0, 20.0, 40.0, 60.0, 60.0, 60.0]
    now[0] += 2 * CALM_SECONDS_MAX
    calm.disturbed()
    now[0] += CALM_SECONDS_MIN
    assert calm, "a long calm has been forgiven"
    calm.took(0.4)
    assert calm
    calm.took(0.6)
    assert not calm


def test_closing_is_final_and_wakes_nobody_up_for_long(tmp_path: Path) -> None:
    behind = AwayLog()
    log = spooling(tmp_path, behind)
    behind.unavailable = True
    log.append([entry("activity", "a")])
    started = time.monotonic()
    log.close()
    assert time.monotonic() - started < 2
    with pytest.raises(LogUnavailableError):
        log.append([entry("activity", "b")])
    assert not [thread for thread in threading.enumerate() if thread.name == "gateway-producer"]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 3)),
        st.tuples(st.just("away"), st.booleans()),
        st.tuples(st.just("lose"), st.integers(1, 2)),
        st.tuples(st.just("refuse"), st.integers(1, 2)),
        st.tuples(st.just("slow"), st.booleans()),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("later"), st.integers(1, 20)),
        st.tuples(st.just("drained"), st.just(0)),
    ),
    min_size=2,
    max_size=25,
)


def emptied(log: SpoolingLog) -> None:
    eventually(lambda: log.spool.empty)


def first_seen(values: list[bytes]) -> list[bytes]:
    return list(dict.fromkeys(values))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_nothing_acknowledged_is_lost_and_nothing_overtakes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever the log behind does, each partition first sees its entries in the order they were appended."""
    folder, behind, now = tmp_path_factory.mktemp("spool"), AwayLog(), [0.0]
    log = spooling(folder, behind, after_seconds=0.02, monotonic=lambda: now[0])
    appended: dict[str, list[bytes]] = {"activity": [], "crashes": []}
    number = 0
    for what, size in steps:
        if what == "append":
            for _ in range(size):
                number += 1
                value = str(number)
                log.append([entry("activity", value), entry("crashes", value)])
                for word in appended:
                    appended[word].append(value.encode())
        elif what == "away":
            behind.unavailable = bool(size)
        elif what == "lose":
            for _ in range(size):
                behind.lose_next_acknowledgement()
        elif what == "refuse":
            for _ in range(size):
                behind.refuse_next_append(LogError("broken, as a test ordered") if size == 2 and log.state() else None)
        elif what == "slow":
            behind.seconds = 0.03 if size else 0.0
        elif what == "restart":
            log._behind.close = lambda: None  # type: ignore[method-assign]  # the log behind outlives this process
            log.close()
            log = spooling(folder, behind, after_seconds=0.02, monotonic=lambda: now[0])
        elif what == "later":
            now[0] += size
        elif not behind.unavailable:
            emptied(log)
    behind.unavailable, behind.seconds = False, 0.0
    eventually(lambda: log.spool.empty)
    for word, expected in appended.items():
        assert first_seen(behind.values(word)) == expected
    log.close()
