"""A log whose next records are handed in: how a consumer of a group feeds an Owner.

A consumer in a group (aiokafka's, or a Faust agent) gets records by push; the Owner pulls, from the offsets in its
state. `Feed` stands between: what was pushed and continues the position is read from memory, everything else (what lies
between the state's offset and the first pushed record, the state itself, inputs nobody pushes) from the log behind. So
a hole left by the consumer's own commits, a redelivery or a rebalance changes nothing: the Owner's offsets decide.

The invariants: records of a partition are given once each and in order, whoever pushed what; at most `bytes_max` are
held for each partition, and whoever pushes beyond it is told to pause.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from ingest.log.interface import Entry, Fence, Log, LogUnavailableError, Record, TopicPartition

FEED_BYTES_MAX = 16 << 20


class _Queue:
    """Pushed records of one partition, in order, without a hole that is not the log's own."""

    __slots__ = ("records", "size_bytes", "start")

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self.size_bytes = 0
        # The records continue any position from here to the first one: in between the log has nothing.
        self.start = 0


class Feed:
    """The log as one Owner sees it, fed with some partitions; everything else is passed on.

    Thread-safe: one thread (or event loop) pushes, the Owner's thread reads.
    """

    def __init__(self, log: Log, fed: Iterable[TopicPartition], bytes_max: int = FEED_BYTES_MAX) -> None:
        """Take the log behind.

        Args:
            log: where everything that was not pushed comes from.
            fed: the partitions that will be pushed.
            bytes_max: most bytes held for one partition.
        """
        self._log = log
        self._bytes_max = bytes_max
        self._queues = {source: _Queue() for source in fed}
        self._ends: dict[TopicPartition, int] = {}
        self._heard: dict[TopicPartition, int] = {}
        self._to_commit: dict[TopicPartition, int] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._woken = False

    def catch_up(self) -> None:
        """Have the Owner read everything that is in the log now, pushed or not; call it before its first step.

        A consumer that starts at its own commits never pushes what lies between the state's offset and them.

        Raises:
            LogUnavailableError: the log behind can't tell its ends.
        """
        self._ends = {source: self._log.bounds(source)[1] for source in self._queues}

    def push(self, source: TopicPartition, records: Sequence[Record], since: int | None = None) -> bool:
        """Hand in the next records of a partition; return whether more may be pushed now.

        Records may come again or leave a hole: what does not continue the position is not used, and the log is read
        instead. They are taken whatever the return value; a caller that goes on pushing is the caller's fault.

        Args:
            source: one of the fed partitions.
            records: in order of their offsets; may be empty.
            since: the consumer's position before these records: between it and the first of them the log has nothing.
                None: taken as the first record's own offset.
        """
        with self._changed:
            queue = self._queues[source]
            if records:
                start = records[0].offset if since is None else min(since, records[0].offset)
                if queue.records and start > queue.records[-1].offset + 1:
                    self._clear(queue)
                if not queue.records:
                    queue.start = start
                last = queue.records[-1].offset if queue.records else -1
                for record in records:
                    if record.offset > last:
                        queue.records.append(record)
                        queue.size_bytes += len(record.value or b"") + len(record.key or b"")
                self._changed.notify_all()
            return queue.size_bytes < self._bytes_max

    def note_end(self, source: TopicPartition, end: int) -> None:
        """Take the partition's end as the consumer heard it from the broker: what `waiting` counts to."""
        with self._changed:
            self._heard[source] = max(end, self._heard.get(source, 0))

    def waiting(self, positions: Mapping[TopicPartition, int]) -> int:
        """Return how many offsets lie between these positions and the furthest end heard of, over fed partitions."""
        with self._changed:
            return sum(max(0, self._end_heard(source) - positions.get(source, 0)) for source in self._queues)

    def _end_heard(self, source: TopicPartition) -> int:
        records = self._queues[source].records
        pushed = records[-1].offset + 1 if records else 0
        return max(pushed, self._heard.get(source, 0), self._ends.get(source, 0))

    def forget(self) -> None:
        """Drop everything pushed: the consumer will start again at a position it is told."""
        with self._changed:
            for queue in self._queues.values():
                self._clear(queue)

    def wake(self) -> None:
        """Have the reader's `wait`, the one under way or else the next, return at once."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def held_bytes(self, source: TopicPartition) -> int:
        """Return the bytes held for a fed partition."""
        with self._changed:
            return self._queues[source].size_bytes

    @staticmethod
    def _clear(queue: _Queue) -> None:
        queue.records.clear()
        queue.size_bytes = 0

    def read(
        self, source: TopicPartition, offset: int, max_records: int = 500, max_bytes: int = 8 << 20
    ) -> list[Record]:
        """Return records from `offset` on; see `Log.read`. Pushed ones if they continue the position."""
        queue = self._queues.get(source)
        if queue is None:
            self._check_open()
            return self._log.read(source, offset, max_records, max_bytes)
        with self._changed:
            self._check_open()
            while queue.records and queue.records[0].offset < offset:
                self._drop_first(queue)
            if queue.records:
                if queue.start <= offset:
                    return self._take(queue, max_records, max_bytes)
                before = queue.records[0].offset
            else:
                before = None
        found = self._log.read(source, offset, max_records, max_bytes)
        return found if before is None else [record for record in found if record.offset < before] or found

    def _drop_first(self, queue: _Queue) -> None:
        record = queue.records.popleft()
        queue.size_bytes -= len(record.value or b"") + len(record.key or b"")
        queue.start = record.offset + 1

    def _take(self, queue: _Queue, max_records: int, max_bytes: int) -> list[Record]:
        taken: list[Record] = []
        room = max_bytes
        # Not removed: an Owner that fails between read and apply reads them again; the next read drops them.
        for record in queue.records:
            room -= len(record.value or b"") + len(record.key or b"")
            if taken and (room < 0 or len(taken) >= max_records):
                break
            taken.append(record)
        return taken

    def wait(self, positions: Mapping[TopicPartition, int], timeout_seconds: float) -> bool:
        """Block until a partition has something at its position; see `Log.wait`.

        Partitions that nobody pushes are asked of the log once at the beginning and once at the end of the time.
        """
        fed = {source: offset for source, offset in positions.items() if source in self._queues}
        others = {source: offset for source, offset in positions.items() if source not in self._queues}
        if not fed:
            return self._log.wait(others, timeout_seconds)
        deadline = time.monotonic() + timeout_seconds
        while True:
            with self._changed:
                self._check_open()
                if any(self._ready(source, offset) for source, offset in fed.items()):
                    return True
            if others and self._log.wait(others, 0.0):
                return True
            with self._changed:
                self._check_open()
                remaining = deadline - time.monotonic()
                if self._woken or remaining <= 0:
                    self._woken = False
                    return False
                if not any(self._ready(source, offset) for source, offset in fed.items()):
                    self._changed.wait(remaining)

    def _ready(self, source: TopicPartition, offset: int) -> bool:
        records = self._queues[source].records
        return offset < self._ends.get(source, 0) or (bool(records) and records[-1].offset >= offset)

    def has(self, source: TopicPartition, offset: int) -> bool:
        """Return whether a fed partition is known to have something from `offset` on; the log behind is not asked."""
        with self._changed:
            self._check_open()
            queue = self._queues[source]
            while queue.records and queue.records[0].offset < offset:
                self._drop_first(queue)
            return self._ready(source, offset)

    def close(self) -> None:
        """End this feed and wake its reader; whatever it asks from here on is refused, a claim or an append too.

        The log behind stays open for others.
        """
        with self._changed:
            self._closed = True
            for queue in self._queues.values():
                self._clear(queue)
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailableError("this feed has ended: its partitions were given to somebody else")

    # Passed on.

    def append(self, entries: Sequence[Entry], fence: Fence | None = None) -> list[int]:
        """Append to the log behind; see `Log.append`."""
        self._check_open()
        return self._log.append(entries, fence)

    def bounds(self, source: TopicPartition) -> tuple[int, int]:
        """Return the bounds in the log behind; see `Log.bounds`."""
        self._check_open()
        return self._log.bounds(source)

    def claim(self, name: str) -> Fence:
        """Claim in the log behind; see `Log.claim`."""
        self._check_open()
        return self._log.claim(name)

    def check(self, fence: Fence) -> None:
        """Check in the log behind; see `Log.check`."""
        self._check_open()
        self._log.check(fence)

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], fence: Fence | None = None) -> None:
        """Keep the offsets of fed partitions in `to_commit` and commit the others in the log behind.

        A broker takes a group's commits from its members only: those of fed partitions are the consumer's to make.
        """
        others = {source: offset for source, offset in offsets.items() if source not in self._queues}
        with self._changed:
            self._to_commit = self._to_commit | {s: o for s, o in offsets.items() if s in self._queues}
        if others:
            self._log.commit(group, others, fence)

    @property
    def to_commit(self) -> Mapping[TopicPartition, int]:
        """What the Owner would have committed of the fed partitions, for the group's consumer to commit."""
        return self._to_commit

    def committed(self, group: str, source: TopicPartition) -> int | None:
        """Return what is committed in the log behind; see `Log.committed`."""
        self._check_open()
        return self._log.committed(group, source)
