"""The Owner on all logs: exact through crashes at any point, refuses gaps, and gives way to a newer owner."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from ingest.clock import DrivenClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry, FencedError, Log, LogError, LogUnavailableError, Record, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.owner import GapError, Owner
from ingest.log.specs import TopicSpec
from support.counting_stage import CHUNKS, IN, OUT, SPECS, STATE, Chunk, CountingStage
from support.kafka_log import AgingKafkaLog, kafka_logs

AnyLog = MemoryLog | EmbeddedLog | AgingKafkaLog


class Crash(BaseException):
    """Stands for a SIGKILL at a chosen point."""


class CrashingLog:
    """Passes everything on, and dies before or after one of the appends or commits."""

    def __init__(self, log: Log, generator: random.Random, crash_share: float) -> None:
        self._log = log
        self._generator = generator
        self._crash_share = crash_share

    def _perhaps(self) -> None:
        if self._generator.random() < self._crash_share:
            raise Crash

    def append(self, entries: Sequence[Entry], fence: object = None) -> list[int]:
        self._perhaps()
        offsets = self._log.append(entries, fence)  # type: ignore[arg-type]  # passed on as it came
        self._perhaps()
        return offsets

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], fence: object = None) -> None:
        self._perhaps()
        self._log.commit(group, offsets, fence)  # type: ignore[arg-type]  # passed on as it came
        self._perhaps()

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)


@pytest.fixture
def clock() -> DrivenClock:
    return DrivenClock(1_721_275_140_000)


@pytest.fixture(params=["memory", "embedded", "kafka"])
def log(request: pytest.FixtureRequest, tmp_path: Path, clock: DrivenClock) -> Iterator[AnyLog]:
    with ExitStack() as stack:
        log: AnyLog
        if request.param == "memory":
            log = MemoryLog(SPECS, clock)
        elif request.param == "embedded":
            log = EmbeddedLog(tmp_path, SPECS, clock)
        else:
            log = stack.enter_context(kafka_logs(request.getfixturevalue("kafka"), SPECS, clock)).open()
        stack.callback(log.close)
        yield log


@pytest.fixture
def make(log: AnyLog, clock: DrivenClock) -> Callable[[CountingStage], Owner]:
    def owner(stage: CountingStage) -> Owner:
        return Owner(log, "count/0", "count", stage, STATE, clock, records_per_read_max=10, commit_seconds=0)

    return owner


def fill(log: AnyLog, count: int, start: int = 0) -> None:
    log.append([Entry("in", number % 2, None, b"%d" % (number % 10)) for number in range(start, start + count)])


def drain(owner: Owner) -> None:
    while owner.step(0):
        pass


Make = Callable[[CountingStage], Owner]


def test_reads_everything_and_says_so(log: AnyLog, make: Make) -> None:
    fill(log, 100)
    stage = CountingStage()
    owner = make(stage)
    owner.start()
    assert owner.backlog() == dict.fromkeys(IN, 50)
    drain(owner)
    assert owner.backlog() == dict.fromkeys(IN, 0)
    assert [stage.count(str(word)) for word in range(10)] == [10] * 10
    latest = {record.key: record.value for record in log.read(OUT, 0, 10_000)}
    assert latest == {b"%d" % word: b"10" for word in range(10)}


def test_commits_trail_the_oldest_chunk(log: AnyLog, make: Make) -> None:
    fill(log, 200)
    owner = make(CountingStage())
    owner.start()
    owner.step(0)
    assert log.committed("count", IN[0]) in (None, 0), "three of the four chunks have not been written yet"
    for _ in range(CHUNKS):
        owner.step(0)
        committed = log.committed("count", IN[0])
        assert committed is not None
        assert committed < owner.positions[IN[0]]
    assert committed is not None
    assert committed > 0


def test_counts_are_exact_through_crashes_anywhere(log: AnyLog, clock: DrivenClock) -> None:
    generator = random.Random(2024)
    written = crashes = 0
    stage = CountingStage()
    while written < 2000 or crashes < 40:
        stage = CountingStage()
        crashing = CrashingLog(log, generator, 0.08)
        owner = Owner(crashing, "count/0", "count", stage, STATE, clock, records_per_read_max=10, commit_seconds=0)  # type: ignore[arg-type]  # the rest is passed on by __getattr__
        try:
            owner.start()
            while True:
                if generator.random() < 0.5:
                    fill(log, 20, written)
                    written += 20
                owner.step(0)
                if generator.random() < 0.1:
                    log.maintain()
        except Crash:
            crashes += 1
    stage = CountingStage()
    owner = Owner(log, "count/0", "count", stage, STATE, clock)
    owner.start()
    drain(owner)
    assert [stage.count(str(word)) for word in range(10)] == [written // 10] * 10
    latest = {record.key: record.value for record in log.read(OUT, 0, 1_000_000, 1 << 30)}
    assert latest == {b"%d" % word: b"%d" % (written // 10) for word in range(10)}


def test_a_gap_is_refused_at_the_start(log: AnyLog, clock: DrivenClock, make: Make) -> None:
    fill(log, 100)
    owner = make(CountingStage())
    owner.start()
    for _ in range(CHUNKS):
        owner.step(0)
    clock.drive_to(clock.now_ms() + 2000)
    log.maintain()
    with pytest.raises(GapError, match="needed is 10, but the log starts at 50"):
        make(CountingStage()).start()


def test_a_gap_while_running_ends_the_owner(log: AnyLog, clock: DrivenClock, make: Make) -> None:
    fill(log, 100)
    stage = CountingStage()
    owner = make(stage)
    owner.start()
    # To the end: what a log has fetched ahead it may still give when retention has passed it.
    drain(owner)
    counted = sum(stage.count(str(word)) for word in range(10))
    fill(log, 100, 100)
    clock.drive_to(clock.now_ms() + 2000)
    log.maintain()
    for _ in range(2):
        with pytest.raises(GapError):
            owner.step(0)
    assert sum(stage.count(str(word)) for word in range(10)) == counted


def test_a_lost_state_is_a_gap_not_a_fresh_start(log: AnyLog, clock: DrivenClock, make: Make) -> None:
    fill(log, 10)
    log.commit("count", {IN[0]: 5, IN[1]: 5})
    clock.drive_to(clock.now_ms() + 2000)
    log.maintain()
    with pytest.raises(GapError, match="knows nothing"):
        Owner(log, "count/0", "count", Stateless(), STATE, clock).start()


def test_a_state_ahead_of_the_log_is_refused(log: AnyLog, make: Make) -> None:
    fill(log, 10)
    chunk = msgspec.json.encode(Chunk(offsets={0: 1000, 1: 5}))
    log.append([Entry("state", 0, b"%d" % number, chunk) for number in range(CHUNKS)])
    with pytest.raises(GapError, match="up to 1000 but the log ends at 5"):
        make(CountingStage()).start()


def test_a_new_input_starts_at_the_first_record_there_is(log: AnyLog, clock: DrivenClock) -> None:
    fill(log, 10)
    clock.drive_to(clock.now_ms() + 2000)
    log.maintain()
    owner = Owner(log, "count/0", "count", Stateless(), STATE, clock)
    owner.start()
    assert owner.positions == dict.fromkeys(IN, 5)


def test_a_newer_owner_ends_the_older_one(log: AnyLog, make: Make) -> None:
    fill(log, 100)
    old, new = make(CountingStage()), make(CountingStage())
    old.start()
    old.step(0)
    new.start()
    end = log.bounds(OUT)[1], log.bounds(STATE)[1]
    for _ in range(2):
        with pytest.raises(FencedError):
            old.step(0)
    assert (log.bounds(OUT)[1], log.bounds(STATE)[1]) == end, "the older one wrote nothing more"
    assert new.fence.epoch > old.fence.epoch
    drain(new)
    assert new.backlog() == dict.fromkeys(IN, 0)


class Stateless(CountingStage):
    """Has outputs but no state; its committed offsets are all it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.next: dict[TopicPartition, int] = {}

    def restore(self, entries: Iterable[tuple[bytes, bytes]]) -> Mapping[TopicPartition, int]:
        assert list(entries) == []
        return {}

    def apply(self, source: TopicPartition, records: Sequence[Record]) -> None:
        super().apply(source, records)
        self.next[source] = records[-1].offset + 1

    def snapshot(self, now_ms: int) -> Sequence[Entry]:
        return []

    def oldest(self) -> Mapping[TopicPartition, int]:
        return dict(self.next)


def test_a_stage_without_state_goes_on_from_its_commits(log: AnyLog, clock: DrivenClock) -> None:
    fill(log, 20)
    first = Owner(log, "s/0", "s", Stateless(), None, clock)
    first.start()
    drain(first)
    first.stop()
    fill(log, 10, 20)
    stage = Stateless()
    second = Owner(log, "s/0", "s", stage, None, clock)
    second.start()
    assert second.positions == dict.fromkeys(IN, 10)
    drain(second)
    assert sum(stage.count(str(word)) for word in range(10)) == 10


class Choosy(CountingStage):
    """Wants its inputs one after the other, a read of each."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[int] = []

    def apply(self, source: TopicPartition, records: Sequence[Record]) -> None:
        super().apply(source, records)
        self.order.append(source.partition)

    def wants(self) -> Sequence[TopicPartition]:
        return [IN[len(self.order) % 2]] if len(self.order) < 6 else []


def test_a_stage_may_say_what_it_wants_next(log: AnyLog, make: Make) -> None:
    fill(log, 200)
    stage = Choosy()
    owner = make(stage)
    owner.start()
    drain(owner)
    assert stage.order == [0, 1, 0, 1, 0, 1]
    assert owner.positions == dict.fromkeys(IN, 30)


def test_stop_writes_what_is_left_and_ends(log: AnyLog, make: Make) -> None:
    fill(log, 20)
    stage = CountingStage()
    owner = make(stage)
    owner.start()
    drain(owner)
    stage.changed.add("3")
    before = log.bounds(OUT)[1]
    owner.stop()
    assert [record.key for record in log.read(OUT, before)] == [b"3"]
    with pytest.raises(LogError, match="was stopped"):
        owner.step(0)
    owner.stop()


def test_a_state_may_span_partitions(clock: DrivenClock) -> None:
    log = MemoryLog((TopicSpec("in", 2), TopicSpec("state", 2, compacted=True)), clock)
    fill(log, 10)
    for number in range(CHUNKS):
        chunk = Chunk(counts={str(number): number}, offsets={0: 5, 1: 5})
        log.append([Entry("state", number % 2, b"%d" % number, msgspec.json.encode(chunk))])
    stage = CountingStage()
    states = [TopicPartition("state", 0), TopicPartition("state", 1)]
    owner = Owner(log, "count/0", "count", stage, states, clock)
    owner.start()
    assert owner.positions == dict.fromkeys(IN, 5)
    assert [stage.count(str(number)) for number in range(CHUNKS)] == [0, 1, 2, 3]


def test_an_owner_that_was_not_started_says_so(log: AnyLog, make: Make) -> None:
    with pytest.raises(LogError, match="start"):
        make(CountingStage()).step(0)


def test_a_stage_that_raises_ends_the_owner_and_leaves_the_log_as_it_was(log: AnyLog, make: Make) -> None:
    log.append([Entry("in", 0, None, b"not a number")])
    owner = make(CountingStage())
    owner.start()
    for _ in range(2):
        with pytest.raises(ValueError, match="not a number"):
            owner.step(0)
    assert log.bounds(OUT) == log.bounds(STATE) == (0, 0)


def test_compaction_of_an_input_is_no_gap(clock: DrivenClock) -> None:
    specs = (TopicSpec("in", 2, compacted=True), TopicSpec("out", 1), TopicSpec("state", 1, compacted=True))
    log = MemoryLog(specs, clock, tombstone_ms=0)
    for number in range(10):
        log.append([Entry("in", 0, b"k", b"%d" % number)])
    log.append([Entry("in", 0, b"k", None)])
    clock.drive_to(clock.now_ms() + 1)
    log.maintain()
    owner = Owner(log, "count/0", "count", CountingStage(), STATE, clock)
    owner.start()
    assert not owner.step(0)
    log.append([Entry("in", 0, b"k", b"7")])
    assert owner.step(0)
    assert owner.positions[IN[0]] == 12


@pytest.mark.parametrize("written", [False, True])
def test_an_unavailable_log_loses_nothing(clock: DrivenClock, written: bool) -> None:
    log = MemoryLog(SPECS, clock)
    fill(log, 40)
    stage = CountingStage()
    owner = Owner(log, "count/0", "count", stage, STATE, clock)
    owner.start()
    if written:
        log.lose_next_acknowledgement()
    else:
        log.refuse_next_append()
    with pytest.raises(LogUnavailableError):
        owner.step(0)
    applied = dict(owner.positions)
    log.unavailable = True
    with pytest.raises(LogUnavailableError):
        owner.step(0)
    log.unavailable = False
    owner.step(0)
    assert owner.positions == applied, "what was applied is not applied again"
    assert {record.key: record.value for record in log.read(OUT, 0)} == {b"%d" % word: b"4" for word in range(10)}
