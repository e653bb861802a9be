"""The contract suite of the log: every back end is held to the words in `ingest/log/interface.py` by the same tests.

A back end subclasses `LogContract` and says in the `backend` fixture how it is opened. What it cannot do on demand it
declares in its `Capabilities`; the tests that need it are then skipped by name.

Longer than 400 lines because it is one contract: a back end inherits one class and is held to all of it.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from ingest.clock import DrivenClock
from ingest.log.interface import (
    Entry,
    FencedError,
    Log,
    LogError,
    LogUnavailableError,
    OffsetGoneError,
    Record,
    TopicPartition,
    UnknownTopicError,
)
from ingest.log.specs import TopicSpec

HOUR_MS = 3_600_000
START_MS = 1_721_275_140_000
TOMBSTONE_MS = HOUR_MS

EVENTS = TopicPartition("contract.events", 0)
EVENTS_1 = TopicPartition("contract.events", 1)
STATE = TopicPartition("contract.state", 0)
SMALL = TopicPartition("contract.small", 0)
SPECS = (
    TopicSpec("contract.events", 2, retention_ms=HOUR_MS),
    TopicSpec("contract.state", 1, compacted=True),
    TopicSpec("contract.small", 1, retention_bytes_max=100_000),
    TopicSpec("contract.forever", 1),
)


@dataclass(frozen=True)
class Capabilities:
    """What a back end can do when a test asks for it.

    Attributes:
        durable: what was appended is there after close and open.
        driven_clock: `appended_at_ms` follows the test's clock, as does what becomes of tombstones.
        maintains_on_demand: compaction, and retention by bytes, happen when the test says so.
        retains_on_demand: retention by age happens when the test says so, and follows the test's clock.
        dense: a record's offset is the one before plus one (no transaction markers).
        wakes_within_seconds: how soon `wait` notices an append of the same process.
    """

    durable: bool = True
    driven_clock: bool = True
    maintains_on_demand: bool = True
    retains_on_demand: bool = True
    dense: bool = True
    wakes_within_seconds: float = 0.1


class Backend:
    """One back end, opened and closed by the tests."""

    def __init__(self, clock: DrivenClock, capabilities: Capabilities, open_log: Callable[[], Log]) -> None:
        self.clock = clock
        self.capabilities = capabilities
        self._open = open_log
        self._log: Log | None = None

    @property
    def log(self) -> Log:
        """The open log."""
        if self._log is None:
            self._log = self._open()
        return self._log

    def reopen(self) -> Log:
        """Close and open it again."""
        self.close()
        return self.log

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def maintain(self) -> None:
        """Compact and apply retention now; back ends that can have a method of this name."""
        self.log.maintain()  # type: ignore[attr-defined]  # beyond the interface: guarded by `need`

    def need(self, *names: str) -> None:
        """Skip the test unless the back end has these capabilities."""
        for name in names:
            if not getattr(self.capabilities, name):
                pytest.skip(f"the back end lacks the capability {name}")


def entry(source: TopicPartition, value: bytes | None, key: bytes | None = None) -> Entry:
    """Return an entry for a partition."""
    return Entry(source.topic, source.partition, key, value)


def read_all(log: Log, source: TopicPartition, offset: int = 0, max_records: int = 7) -> list[Record]:
    """Read to the end in small reads."""
    records: list[Record] = []
    while got := log.read(source, offset, max_records):
        records += got
        offset = got[-1].offset + 1
    return records


class LogContract:
    """Subclass it as `Test...` and give it a `backend` fixture."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        """Yield the back end under test, empty, with the topics in `SPECS`."""
        raise NotImplementedError

    @pytest.fixture
    def log(self, backend: Backend) -> Log:
        return backend.log

    # Order and content.

    def test_an_empty_partition_has_nothing_to_read(self, log: Log) -> None:
        assert log.bounds(EVENTS) == (0, 0)
        assert log.read(EVENTS, 0) == []
        assert log.committed("g", EVENTS) is None

    def test_records_come_back_in_order_with_their_keys_values_and_time(self, backend: Backend, log: Log) -> None:
        offsets = log.append([entry(EVENTS, b"a"), entry(EVENTS, b"b", b"k"), entry(EVENTS, b"", b"")])
        offsets += log.append([entry(EVENTS, None, b"gone")])
        records = read_all(log, EVENTS)
        assert [record.offset for record in records] == offsets == sorted(set(offsets))
        assert [(r.key, r.value) for r in records] == [(None, b"a"), (b"k", b"b"), (b"", b""), (b"gone", None)]
        if backend.capabilities.dense:
            assert offsets == [0, 1, 2, 3]
        if backend.capabilities.driven_clock:
            assert {record.appended_at_ms for record in records} == {START_MS}

    def test_partitions_are_apart(self, log: Log) -> None:
        log.append([entry(EVENTS, b"zero"), entry(EVENTS_1, b"one"), entry(EVENTS, b"two")])
        assert [record.value for record in read_all(log, EVENTS)] == [b"zero", b"two"]
        assert [record.value for record in read_all(log, EVENTS_1)] == [b"one"]

    def test_a_read_begins_at_its_offset_and_keeps_its_bounds(self, log: Log) -> None:
        offsets = log.append([entry(EVENTS, bytes([n]) * 1000) for n in range(10)])
        assert [r.offset for r in log.read(EVENTS, offsets[4], max_records=3)] == offsets[4:7]
        assert [r.offset for r in log.read(EVENTS, offsets[0], max_bytes=3500)] == offsets[:3]
        assert log.read(EVENTS, offsets[-1] + 1) == []

    def test_a_read_gives_at_least_one_record_however_large(self, log: Log) -> None:
        log.append([entry(EVENTS, b"x" * 5000), entry(EVENTS, b"y")])
        assert [len(record.value or b"") for record in log.read(EVENTS, 0, max_records=1, max_bytes=1)] == [5000]
        assert len(log.read(EVENTS, 0, max_bytes=1)) == 1

    def test_large_values_come_back_whole(self, log: Log) -> None:
        generator = random.Random(7)
        values = [generator.randbytes(900_000), b'{"kind":"check_in"}' * 20_000, b"z" * 513, b"z" * 512, b"z" * 511]
        log.append([entry(EVENTS, value) for value in values])
        assert [record.value for record in read_all(log, EVENTS)] == values

    def test_an_empty_append_does_nothing(self, log: Log) -> None:
        assert log.append([]) == []
        assert log.bounds(EVENTS) == (0, 0)

    # Atomicity.

    def test_an_unknown_topic_or_partition_refuses_the_whole_append(self, log: Log) -> None:
        for topic, partition in (("contract.evnets", 0), ("contract.events", 2), ("contract.events", -1)):
            with pytest.raises(UnknownTopicError):
                log.append([entry(EVENTS, b"a"), Entry(topic, partition, None, b"b")])
        assert read_all(log, EVENTS) == []

    def test_unknown_topics_are_refused_everywhere(self, log: Log) -> None:
        unknown = TopicPartition("contract.nowhere", 0)
        for call in (
            lambda: log.read(unknown, 0),
            lambda: log.bounds(unknown),
            lambda: log.committed("g", unknown),
            lambda: log.commit("g", {unknown: 1}),
            lambda: log.wait({unknown: 0}, 0),
        ):
            with pytest.raises(UnknownTopicError):
                call()

    def test_a_record_without_a_key_is_refused_where_topics_are_compacted(self, log: Log) -> None:
        with pytest.raises(LogError):
            log.append([entry(EVENTS, b"a"), entry(STATE, b"b")])
        assert read_all(log, EVENTS) == read_all(log, STATE) == []

    def test_concurrent_appends_are_whole_and_consecutive(self, log: Log) -> None:
        def write(writer: int) -> list[list[int]]:
            return [
                log.append([entry(EVENTS, b"%d %d %d" % (writer, turn, n)) for n in range(3)]) for turn in range(20)
            ]

        with ThreadPoolExecutor(6) as pool:
            answers = [offsets for writer in pool.map(write, range(6)) for offsets in writer]
        assert all(offsets == list(range(offsets[0], offsets[0] + 3)) for offsets in answers)
        records = {record.offset: record.value for record in read_all(log, EVENTS, max_records=50)}
        assert len(records) == len({offset for offsets in answers for offset in offsets}) == 6 * 20 * 3
        for writer in range(6):
            mine = [value for _, value in sorted(records.items()) if value and value.startswith(b"%d " % writer)]
            assert mine == [b"%d %d %d" % (writer, turn, n) for turn in range(20) for n in range(3)]

    # Fencing.

    def test_a_later_claim_makes_the_earlier_one_stale(self, log: Log) -> None:
        old, new = log.claim("grouping/0"), log.claim("grouping/0")
        assert new.epoch > old.epoch
        with pytest.raises(FencedError):
            log.append([entry(EVENTS, b"stale"), entry(EVENTS_1, b"stale")], old)
        with pytest.raises(FencedError):
            log.commit("g", {EVENTS: 5}, old)
        with pytest.raises(FencedError):
            log.check(old)
        log.check(new)
        assert log.bounds(EVENTS) == log.bounds(EVENTS_1) == (0, 0)
        assert log.committed("g", EVENTS) is None
        log.append([entry(EVENTS, b"fresh")], new)
        assert [record.value for record in read_all(log, EVENTS)] == [b"fresh"]

    def test_claims_on_different_names_do_not_touch_each_other(self, log: Log) -> None:
        one = log.claim("grouping/0")
        log.claim("grouping/1")
        assert len(log.append([entry(EVENTS, b"a")], one)) == 1

    def test_a_stale_writer_in_a_crowd_fails_alone(self, log: Log) -> None:
        stale = log.claim("crowd")
        log.claim("crowd")
        failures: list[BaseException] = []

        def write(number: int) -> None:
            for _ in range(20):
                if number % 2:
                    log.append([entry(EVENTS, b"good")])
                else:
                    try:
                        log.append([entry(EVENTS, b"bad")], stale)
                    except FencedError as error:
                        failures.append(error)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(write, range(6)))
        assert len(failures) == 60
        assert [record.value for record in read_all(log, EVENTS, max_records=50)] == [b"good"] * 60

    # Groups.

    def test_commits_are_kept_by_group_and_partition(self, log: Log) -> None:
        log.append([entry(EVENTS, b"a"), entry(EVENTS_1, b"b")])
        log.commit("g", {EVENTS: 1, EVENTS_1: 0})
        log.commit("h", {EVENTS: 0})
        log.commit("g", {EVENTS_1: 1})
        assert [log.committed("g", source) for source in (EVENTS, EVENTS_1)] == [1, 1]
        assert [log.committed("h", source) for source in (EVENTS, EVENTS_1)] == [0, None]

    # Waiting.

    def test_wait_returns_at_once_when_there_is_something(self, log: Log) -> None:
        log.append([entry(EVENTS_1, b"a")])
        assert log.wait({EVENTS: 0, EVENTS_1: 0}, 0)
        assert not log.wait({EVENTS: 0, EVENTS_1: 1}, 0.01)
        assert not log.wait({}, 0.01)

    def test_wait_wakes_on_an_append(self, backend: Backend, log: Log) -> None:
        woken_at: list[float] = []
        waiting = threading.Event()

        def sleep() -> None:
            waiting.set()
            assert log.wait({EVENTS: 0, EVENTS_1: 0}, 20)
            woken_at.append(time.monotonic())

        sleeper = threading.Thread(target=sleep)
        sleeper.start()
        waiting.wait()
        time.sleep(0.02)
        log.append([entry(EVENTS_1, b"a")])
        appended_at = time.monotonic()
        sleeper.join(30)
        assert woken_at[0] - appended_at < backend.capabilities.wakes_within_seconds

    # Compaction.

    def test_compaction_keeps_the_latest_record_of_each_key(self, backend: Backend, log: Log) -> None:
        backend.need("maintains_on_demand")
        for turn in range(5):
            log.append([entry(STATE, b"%d" % turn, key) for key in (b"a", b"b")] + [entry(EVENTS, b"%d" % turn)])
        log.append([entry(STATE, b"only", b"c")])
        _, end = log.bounds(STATE)
        backend.maintain()
        log = backend.reopen() if backend.capabilities.durable else log
        assert {record.key: record.value for record in read_all(log, STATE)} == {b"a": b"4", b"b": b"4", b"c": b"only"}
        assert len(read_all(log, STATE)) == 3
        assert len(read_all(log, EVENTS)) == 5
        assert log.bounds(STATE) == (0, end), "holes left by compaction are no gap"
        assert [record.value for record in log.read(STATE, 1, max_records=1)] == [b"4"]

    def test_tombstones_are_readable_for_a_while_and_then_gone(self, backend: Backend, log: Log) -> None:
        backend.need("maintains_on_demand", "driven_clock")
        log.append([entry(STATE, b"1", b"a"), entry(STATE, b"2", b"b")])
        log.append([entry(STATE, None, b"a")])
        backend.maintain()
        assert [(r.key, r.value) for r in read_all(log, STATE)] == [(b"b", b"2"), (b"a", None)]
        backend.clock.drive_to(START_MS + TOMBSTONE_MS + 1)
        backend.maintain()
        log = backend.reopen() if backend.capabilities.durable else log
        assert [(r.key, r.value) for r in read_all(log, STATE)] == [(b"b", b"2")]
        assert not log.wait({STATE: 2}, 0), "there is nothing left to wait for"
        (offset,) = log.append([entry(STATE, b"3", b"a")])
        assert offset == 3, "the dropped tombstone's offset is not given again"
        assert log.read(STATE, 2)[0].value == b"3"

    def test_a_key_written_again_outlives_its_tombstone(self, backend: Backend, log: Log) -> None:
        backend.need("maintains_on_demand", "driven_clock")
        log.append([entry(STATE, None, b"a")])
        log.append([entry(STATE, b"back", b"a")])
        backend.clock.drive_to(START_MS + TOMBSTONE_MS + 1)
        backend.maintain()
        log.append([entry(STATE, b"again", b"a")])
        backend.maintain()
        log = backend.reopen() if backend.capabilities.durable else log
        assert [record.value for record in read_all(log, STATE)] == [b"again"]

    # Retention.

    def test_retention_by_age_takes_the_oldest_and_says_so(self, backend: Backend, log: Log) -> None:
        backend.need("retains_on_demand")
        log.append([entry(EVENTS, b"%d" % n) for n in range(5)])
        backend.clock.drive_to(START_MS + HOUR_MS // 2)
        log.append([entry(EVENTS, b"young")])
        backend.clock.drive_to(START_MS + HOUR_MS + 1)
        backend.maintain()
        assert log.bounds(EVENTS) == (5, 6)
        assert [record.value for record in log.read(EVENTS, 5)] == [b"young"]
        with pytest.raises(OffsetGoneError):
            log.read(EVENTS, 4)
        assert log.wait({EVENTS: 4}, 0), "a reader that fell behind must learn of it, not sleep"

    def test_offsets_are_never_reused_even_when_nothing_is_left(self, backend: Backend, log: Log) -> None:
        backend.need("retains_on_demand")
        log.append([entry(EVENTS, b"%d" % n) for n in range(5)])
        backend.clock.drive_to(START_MS + HOUR_MS + 1)
        backend.maintain()
        log = backend.reopen() if backend.capabilities.durable else log
        assert log.bounds(EVENTS) == (5, 5)
        assert log.read(EVENTS, 5) == []
        assert not log.wait({EVENTS: 5}, 0)
        assert log.append([entry(EVENTS, b"next")]) == [5]
        with pytest.raises(OffsetGoneError):
            log.read(EVENTS, 0)

    def test_retention_by_bytes_keeps_the_newest(self, backend: Backend, log: Log) -> None:
        backend.need("maintains_on_demand")
        generator = random.Random(1)
        for _ in range(30):
            log.append([entry(SMALL, generator.randbytes(10_000))])
        backend.maintain()
        first, end = log.bounds(SMALL)
        assert (first, end) == (20, 30)
        assert [record.offset for record in read_all(log, SMALL, first)] == list(range(20, 30))

    # Restart.

    def test_everything_is_there_after_a_restart(self, backend: Backend, log: Log) -> None:
        backend.need("durable")
        log.append([entry(EVENTS, b"a"), entry(STATE, b"s", b"k"), entry(EVENTS, b"b" * 10_000, b"key")])
        log.commit("g", {EVENTS: 1})
        fence = log.claim("w")
        log = backend.reopen()
        assert [(r.key, r.value) for r in read_all(log, EVENTS)] == [(None, b"a"), (b"key", b"b" * 10_000)]
        assert log.committed("g", EVENTS) == 1
        assert log.append([entry(EVENTS, b"c")], fence) == [2], "a claim outlives the process"
        assert log.claim("w").epoch > fence.epoch
        with pytest.raises(FencedError):
            log.append([entry(EVENTS, b"d")], fence)

    def test_a_closed_log_refuses_everything(self, log: Log) -> None:
        log.close()
        log.close()
        for call in (
            lambda: log.append([entry(EVENTS, b"a")]),
            lambda: log.read(EVENTS, 0),
            lambda: log.claim("w"),
            lambda: log.commit("g", {EVENTS: 1}),
            lambda: log.committed("g", EVENTS),
            lambda: log.bounds(EVENTS),
            lambda: log.wait({EVENTS: 0}, 0),
        ):
            with pytest.raises(LogUnavailableError):
                call()

    def test_close_ends_the_wait_of_others(self, log: Log) -> None:
        ended: list[BaseException] = []

        def sleep() -> None:
            try:
                log.wait({EVENTS: 0}, 30)
            except LogUnavailableError as error:
                ended.append(error)

        sleeper = threading.Thread(target=sleep)
        sleeper.start()
        time.sleep(0.05)
        log.close()
        sleeper.join(5)
        assert len(ended) == 1
