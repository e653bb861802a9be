"""What the embedded log knows of its partitions in memory: their bounds, their newest records, and who waits for more.

Written only by whoever leads a commit, after the COMMIT, so nothing is visible before it is durable. The newest records
of topics that are not compacted stay in a bounded tail: consumers that keep up are served from it and touch neither
SQLite nor the decompressor.
"""

import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ingest.log.interface import Record, TopicPartition
from ingest.log.specs import TopicSpec

TAIL_BYTES_MAX = 48 << 20
# What a record costs in memory beside its key and value.
_RECORD_BYTES = 200


@dataclass(slots=True)
class Head:
    """One partition's bounds.

    Attributes:
        id: the partition's number in the file.
        first: the first offset that retention has left.
        next: the offset the next record will get.
        last: the offset of the last record that is there; below `first` if there is none.
        stored_bytes: keys and values as stored.
    """

    id: int
    spec: TopicSpec
    first: int
    next: int
    last: int
    stored_bytes: int

    def follow(self, other: "Head") -> None:
        """Take over the bounds of `other`."""
        self.first, self.next, self.last, self.stored_bytes = other.first, other.next, other.last, other.stored_bytes


@dataclass(slots=True)
class _Tail:
    base: int = 0
    dead: int = 0
    records: list[Record] = field(default_factory=list)


class Tails:
    """The newest records of all partitions together, `TAIL_BYTES_MAX` at most; thread-safe."""

    def __init__(self, bytes_max: int = TAIL_BYTES_MAX) -> None:
        """Keep at most `bytes_max` bytes; 0 keeps nothing."""
        self._bytes_max = bytes_max
        self._bytes = 0
        self._mutex = threading.Lock()
        self._tails: dict[TopicPartition, _Tail] = {}
        self._order: deque[tuple[TopicPartition, int]] = deque()

    def add(self, source: TopicPartition, records: Sequence[Record]) -> None:
        """Take consecutive records that follow what was taken before."""
        with self._mutex:
            tail = self._tails.get(source)
            if tail is None:
                tail = self._tails[source] = _Tail(base=records[0].offset)
            assert tail.base + len(tail.records) == records[0].offset, "appended records are consecutive"
            for record in records:
                tail.records.append(record)
                size = _RECORD_BYTES + len(record.key or b"") + len(record.value or b"")
                self._bytes += size
                self._order.append((source, size))
            while self._bytes > self._bytes_max:
                self._evict()

    def clear(self) -> None:
        """Forget everything."""
        with self._mutex:
            self._tails.clear()
            self._order.clear()
            self._bytes = 0

    def _evict(self) -> None:
        source, size = self._order.popleft()
        self._bytes -= size
        tail = self._tails[source]
        tail.dead += 1
        # The list is trimmed by halves, so that an eviction costs constant time on average.
        if tail.dead * 2 > len(tail.records):
            del tail.records[: tail.dead]
            tail.base += tail.dead
            tail.dead = 0

    def read(self, source: TopicPartition, offset: int, max_records: int, max_bytes: int) -> list[Record] | None:
        """Return records from `offset` on, or None if they are not all in memory."""
        with self._mutex:
            tail = self._tails.get(source)
            if tail is None or offset < tail.base + tail.dead:
                return None
            start = offset - tail.base
            candidates = tail.records[start : start + max(max_records, 1)]
        room = max_bytes
        for count, record in enumerate(candidates):
            room -= len(record.value or b"") + len(record.key or b"")
            if room < 0 and count:
                return candidates[:count]
        return candidates


class Waiting:
    """Wakes those who wait for records of certain partitions, and nobody else."""

    def __init__(self, heads: Mapping[TopicPartition, Head]) -> None:
        """Judge by `heads`, which the log changes before it calls `wake`."""
        self._heads = heads
        self._mutex = threading.Lock()
        self._sleepers: dict[TopicPartition, set[threading.Event]] = {source: set() for source in heads}
        self._closed = False

    def ready(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Tell whether one of the positions has a record at or after it, or has been passed by retention."""
        heads = self._heads
        return any(offset <= heads[source].last or offset < heads[source].first for source, offset in positions.items())

    def wait(self, positions: Mapping[TopicPartition, int], timeout_seconds: float) -> bool:
        """Block until `ready`; return False when the time ran out."""
        if self.ready(positions):
            return True
        deadline = time.monotonic() + timeout_seconds
        event = threading.Event()
        with self._mutex:
            for source in positions:
                self._sleepers[source].add(event)
        try:
            # Looked at again after registering: an append in between has not seen this sleeper.
            while not self._closed and not self.ready(positions):
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not event.wait(remaining):
                    return self.ready(positions)
                event.clear()
            return not self._closed
        finally:
            with self._mutex:
                for source in positions:
                    self._sleepers[source].discard(event)

    def wake(self, sources: Collection[TopicPartition]) -> None:
        """Wake who waits for one of `sources`."""
        with self._mutex:
            for source in sources:
                for event in self._sleepers[source]:
                    event.set()

    def close(self) -> None:
        """Wake everybody for good."""
        with self._mutex:
            self._closed = True
            for events in self._sleepers.values():
                for event in events:
                    event.set()
