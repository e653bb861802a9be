"""The in-memory twin of a log: same words, no disk, and faults on demand.

Stages and their tests run on it. It passes the contract suite of the real logs; what it does not do is survive its
process. The invariant: `append` changes nothing unless all of it is taken.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ingest.clock import Clock
from ingest.log.interface import (
    Entry,
    Fence,
    FencedError,
    LogUnavailableError,
    OffsetGoneError,
    Record,
    TopicPartition,
)
from ingest.log.specs import TopicSpec, TopicSpecs, by_partition, require_key, spec_of

TOMBSTONE_MS = 24 * 3_600_000


@dataclass(slots=True)
class _Partition:
    spec: TopicSpec
    records: list[Record] = field(default_factory=list)
    first: int = 0
    next: int = 0

    def index(self, offset: int) -> int:
        return bisect_left(self.records, offset, key=lambda record: record.offset)


class MemoryLog:
    """A log in memory; thread-safe.

    Fault hooks for tests: `unavailable` makes every call fail; `refuse_next_append` makes one append fail with nothing
    written; `lose_next_acknowledgement` writes one append and then fails it, as a broker does that dies before it
    answers.
    """

    def __init__(self, specs: TopicSpecs, clock: Clock, tombstone_ms: int = TOMBSTONE_MS) -> None:
        """Create every topic of `specs`, empty; dropped tombstones are at least `tombstone_ms` old."""
        self._clock = clock
        self._tombstone_ms = tombstone_ms
        self._specs = by_partition(specs)
        self._partitions = {source: _Partition(spec) for source, spec in self._specs.items()}
        self._fences: dict[str, int] = {}
        self._committed: dict[tuple[str, TopicPartition], int] = {}
        self._changed = threading.Condition(threading.RLock())
        self._refusals: list[Exception] = []
        self._lost_acknowledgements = 0
        self._closed = False
        self.unavailable = False

    # Faults a test may order.

    def refuse_next_append(self, error: Exception | None = None) -> None:
        """Fail the next append with `error` (default: LogUnavailableError) and write nothing."""
        with self._changed:
            self._refusals.append(error or LogUnavailableError("the log refused this append, as a test ordered"))

    def lose_next_acknowledgement(self) -> None:
        """Write the next append and then raise LogUnavailableError, so its caller cannot know."""
        with self._changed:
            self._lost_acknowledgements += 1

    # The log's interface.

    def append(self, entries: Sequence[Entry], fence: Fence | None = None) -> list[int]:
        """Append all entries or none; see `Log.append`."""
        with self._changed:
            self._check_open()
            if self._refusals:
                raise self._refusals.pop(0)
            for entry in entries:
                require_key(spec_of(self._specs, entry.topic, entry.partition), entry.key)
            self._check_fence(fence)
            offsets = [self._append_one(entry) for entry in entries]
            self._changed.notify_all()
            if self._lost_acknowledgements:
                self._lost_acknowledgements -= 1
                raise LogUnavailableError("the acknowledgement was lost, as a test ordered")
            return offsets

    def _append_one(self, entry: Entry) -> int:
        partition = self._partitions[TopicPartition(entry.topic, entry.partition)]
        offset = partition.next
        partition.records.append(Record(offset, entry.key, entry.value, self._clock.now_ms()))
        partition.next = offset + 1
        return offset

    def read(
        self, source: TopicPartition, offset: int, max_records: int = 500, max_bytes: int = 8 << 20
    ) -> list[Record]:
        """Return records from `offset` on; see `Log.read`."""
        with self._changed:
            partition = self._partition(source)
            if offset < partition.first:
                raise OffsetGoneError(f"{source} starts at {partition.first}: offset {offset} has passed its retention")
            taken: list[Record] = []
            room = max_bytes
            start = partition.index(offset)
            for record in partition.records[start : start + max(max_records, 1)]:
                room -= len(record.value or b"") + len(record.key or b"")
                if taken and room < 0:
                    break
                taken.append(record)
            return taken

    def bounds(self, source: TopicPartition) -> tuple[int, int]:
        """Return the first offset without a gap and the next one to be given; see `Log.bounds`."""
        with self._changed:
            partition = self._partition(source)
            return partition.first, partition.next

    def claim(self, name: str) -> Fence:
        """Claim `name`; see `Log.claim`."""
        with self._changed:
            self._check_open()
            epoch = self._fences[name] = self._fences.get(name, 0) + 1
            return Fence(name, epoch)

    def check(self, fence: Fence) -> None:
        """Refuse a stale fence; see `Log.check`."""
        with self._changed:
            self._check_open()
            self._check_fence(fence)

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], fence: Fence | None = None) -> None:
        """Record the group's next offsets; see `Log.commit`."""
        with self._changed:
            for source in offsets:
                self._partition(source)
            self._check_fence(fence)
            for source, offset in offsets.items():
                self._committed[group, source] = offset

    def committed(self, group: str, source: TopicPartition) -> int | None:
        """Return the group's last commit; see `Log.committed`."""
        with self._changed:
            self._partition(source)
            return self._committed.get((group, source))

    def wait(self, positions: Mapping[TopicPartition, int], timeout_seconds: float) -> bool:
        """Block until there is something to read at one of the positions; see `Log.wait`."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while not any(self._ready(source, offset) for source, offset in positions.items()):
                self._check_open()
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(remaining)
            return True

    def close(self) -> None:
        """Refuse everything from now on and wake those who wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def maintain(self) -> None:
        """Apply compaction and retention once, as the embedded log's `maintain` does."""
        with self._changed:
            self._check_open()
            for partition in self._partitions.values():
                self._compact(partition)
                self._retain(partition)

    def _compact(self, partition: _Partition) -> None:
        if not partition.spec.compacted:
            return
        latest = {record.key: record.offset for record in partition.records}
        tombstones_from_ms = self._clock.now_ms() - self._tombstone_ms
        partition.records = [
            record
            for record in partition.records
            if latest[record.key] == record.offset
            and (record.value is not None or record.appended_at_ms >= tombstones_from_ms)
        ]

    def _retain(self, partition: _Partition) -> None:
        spec = partition.spec
        gone = 0
        if spec.retention_ms is not None:
            from_ms = self._clock.now_ms() - spec.retention_ms
            while gone < len(partition.records) and partition.records[gone].appended_at_ms < from_ms:
                gone += 1
        if spec.retention_bytes_max is not None:
            sizes = [len(record.value or b"") + len(record.key or b"") for record in partition.records[gone:]]
            excess = sum(sizes) - spec.retention_bytes_max
            for size in sizes:
                if excess <= 0:
                    break
                excess -= size
                gone += 1
        if gone:
            partition.first = partition.records[gone - 1].offset + 1
            del partition.records[:gone]

    def _ready(self, source: TopicPartition, offset: int) -> bool:
        partition = self._partition(source)
        if offset < partition.first:
            return True
        return bool(partition.records) and partition.records[-1].offset >= offset

    def _partition(self, source: TopicPartition) -> _Partition:
        self._check_open()
        spec_of(self._specs, source.topic, source.partition)
        return self._partitions[source]

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailableError("the log is closed: open it again")
        if self.unavailable:
            raise LogUnavailableError("the log is unavailable, as a test ordered")

    def _check_fence(self, fence: Fence | None) -> None:
        if fence is not None and self._fences.get(fence.name) != fence.epoch:
            raise FencedError(
                f"{fence.name} was claimed again after epoch {fence.epoch}: stop writing, another owner lives"
            )
