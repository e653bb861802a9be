"""Reads of one thread: sequential ones from what was fetched ahead, random ones, and waiting for what comes.

A thread that reads has a `Reader` of its own: Owners, tails and sinks then neither wait for one another's answers nor
share a buffer. What `wait` fetched while it waited is what the next `read` returns, so a consumer that keeps up sends
one request for each batch of records. The invariant: a buffer only saves requests; it never decides what is there.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kafka.future import Future

from ingest.log.interface import OffsetGoneError, Record, TopicPartition
from ingest.log.kafka.batches import Batch
from ingest.log.kafka.fetch import Fetched, bounds, fetch, send_fetch, take_fetch
from ingest.log.kafka.wire import Deadline, Node, Wire

# Compressed bytes that one thread may have fetched ahead, over all its partitions.
AHEAD_BYTES_MAX = 32 << 20
# How long one long poll lasts. With several leaders it may outlast the wait it was sent for, and a partition that is
# waited for since has to wait for its end.
WAIT_SECONDS_MAX = 5.0
WAIT_SECONDS_MAX_OF_SEVERAL = 0.25
_BEYOND_SECONDS = 0.05


@dataclass(slots=True)
class _Buffer:
    """One partition's records fetched and not read yet.

    Attributes:
        position: the offset that a sequential reader asks for next.
        next: where the next fetch goes on. Nothing can be read between the last record held and here.
        stable: the last stable offset when that was fetched.
        batches: not yet decompressed.
        records: of the batch begun.
    """

    position: int
    next: int
    stable: int = 0
    batches: deque[Batch] = field(default_factory=deque)
    records: deque[Record] = field(default_factory=deque)

    def ready(self) -> bool:
        """Return whether there is a record."""
        while not self.records and self.batches:
            self.records.extend(self.batches.popleft().records(self.position))
        return bool(self.records)

    def serves(self, offset: int) -> bool:
        """Return whether a read at `offset` may go on from here."""
        return self.position == offset or (not self.ready() and self.position <= offset <= self.next)

    def take(self, max_records: int, max_bytes: int) -> list[Record]:
        """Take records, at least one."""
        taken: list[Record] = []
        room = max_bytes
        while len(taken) < max(max_records, 1) and self.ready():
            record = self.records[0]
            room -= len(record.value or b"") + len(record.key or b"")
            if taken and room < 0:
                break
            taken.append(self.records.popleft())
        self.position = taken[-1].offset + 1
        return taken

    def absorb(self, fetched: Fetched) -> None:
        """Put what was fetched from `next` on behind the rest."""
        self.batches.extend(fetched.batches)
        self.next, self.stable = fetched.next, fetched.stable

    def bytes_held(self) -> int:
        """Return the compressed bytes held."""
        return sum(len(batch.raw) for batch in self.batches)


class Reader:
    """The reads of one thread."""

    def __init__(self, wire: Wire, polls: Wire, timeout_seconds: float) -> None:
        """Take the wires; nothing is sent before the first read.

        Args:
            wire: for what is answered at once, and for long polls where one leader has all.
            polls: for long polls of several leaders: when one has answered, the others' go on, and a broker answers
                nothing else on their connections meanwhile.
            timeout_seconds: how long Kafka may take for one request before it counts as away.
        """
        self._wire = wire
        self._far = polls
        self._polling = wire
        self._timeout_seconds = timeout_seconds
        self._buffers: dict[TopicPartition, _Buffer] = {}
        self._polls: dict[Node, tuple[Future, dict[TopicPartition, int]]] = {}

    def close(self, deadline: Deadline) -> None:
        """Wake the thread, if it waits, and drop the connections."""
        for wire in (self._wire, self._far):
            wire.close(deadline)

    def read(self, source: TopicPartition, offset: int, max_records: int, max_bytes: int) -> list[Record]:
        """Return records from `offset` on; see `Log.read`."""
        deadline = Deadline(self._timeout_seconds)
        with self._wire.held(deadline):
            buffer = self._at(source, offset)
            while not buffer.ready():
                fetched = fetch(self._wire, source, buffer.next, deadline)
                if fetched.out_of_range:
                    if self._gone(source, offset, deadline):
                        raise OffsetGoneError(f"{source}: offset {offset} has passed its retention")
                    return []
                self._absorb(source, buffer, fetched)
                if not buffer.ready() and buffer.next >= buffer.stable:
                    return []
            return buffer.take(max_records, max_bytes)

    def bounds(self, source: TopicPartition) -> tuple[int, int]:
        """Return a partition's first and last stable offset; see `Log.bounds`."""
        deadline = Deadline(self._timeout_seconds)
        with self._wire.held(deadline):
            return bounds(self._wire, source, deadline)

    def wait(self, positions: Mapping[TopicPartition, int], timeout_seconds: float) -> bool:
        """Return True once a position has a record, or has passed its retention; see `Log.wait`."""
        until = time.monotonic() + timeout_seconds
        deadline = Deadline(self._timeout_seconds)
        with self._wire.held(deadline), self._far.held(deadline):
            asked = False
            while True:
                self._harvest()
                if any(self._at(source, offset).ready() for source, offset in positions.items()):
                    return True
                left = until - time.monotonic()
                if left <= 0 and (asked or not positions):
                    return False
                if not positions:
                    self._wire.drive(lambda: False, left)
                    continue
                trouble = self._poll(positions, max(0.0, left), deadline)
                if isinstance(trouble, BaseException):
                    self._polling.failed(trouble, deadline)
                    continue
                # Kafka is there: from here on it may take as long again before it counts as away.
                deadline = Deadline(self._timeout_seconds)
                asked = True
                if trouble is not None:
                    if any(self._gone(source, positions[source], deadline) for source in trouble):
                        return True
                    self._wire.drive(lambda: False, min(max(0.0, until - time.monotonic()), _BEYOND_SECONDS))

    def _poll(
        self, positions: Mapping[TopicPartition, int], seconds: float, deadline: Deadline
    ) -> BaseException | list[TopicPartition] | None:
        """Ask every leader and wait for the first answer.

        Returns:
            A failure that may pass, or the partitions whose position is out of range, or None.
        """
        wire, leaders = self._wire, self._leaders(self._wire, positions, deadline)
        if len(leaders) > 1:
            wire, leaders = self._far, self._leaders(self._far, positions, deadline)
        if wire is not self._polling:
            # An election: what is under way on the other wire would be driven no more.
            self._polls.clear()
            self._polling = wire
        longest = WAIT_SECONDS_MAX if len(leaders) == 1 else WAIT_SECONDS_MAX_OF_SEVERAL
        wait_ms = int(min(seconds, longest) * 1000)
        for node, offsets in leaders.items():
            if node not in self._polls:
                self._polls[node] = (send_fetch(wire, node, offsets, wait_ms, deadline), offsets)
        mine = [self._polls[node] for node in leaders]
        if not wire.drive(lambda: any(future.is_done for future, _ in mine), wait_ms / 1000 + deadline.remaining()):
            self._polls.clear()
            return TimeoutError("no answer to a fetch")
        # A poll that a dying broker cut short is done as well.
        if any(future.is_done and future.exception is None for future, _ in mine):
            wire.succeeded()
        return self._harvest()

    def _leaders(
        self, wire: Wire, sources: Iterable[TopicPartition], deadline: Deadline
    ) -> dict[Node, dict[TopicPartition, int]]:
        leaders: dict[Node, dict[TopicPartition, int]] = {}
        for source in sources:
            leaders.setdefault(wire.leader(source, deadline), {})[source] = self._buffers[source].next
        return leaders

    def _harvest(self) -> BaseException | list[TopicPartition] | None:
        """Put what has been answered into the buffers."""
        trouble: BaseException | None = None
        beyond: list[TopicPartition] = []
        for node in [node for node, (future, _) in self._polls.items() if future.is_done]:
            future, offsets = self._polls.pop(node)
            if future.exception is not None:
                trouble = future.exception
                continue
            got, passing = take_fetch(self._wire, future.value, offsets)
            trouble = passing or trouble
            for source, fetched in got.items():
                buffer = self._buffers.get(source)
                if fetched.out_of_range:
                    beyond.append(source)
                elif buffer is not None and buffer.next == offsets[source]:
                    self._absorb(source, buffer, fetched)
        return trouble or beyond or None

    def _at(self, source: TopicPartition, offset: int) -> _Buffer:
        buffer = self._buffers.get(source)
        if buffer is None or not buffer.serves(offset):
            buffer = self._buffers[source] = _Buffer(offset, offset)
        return buffer

    def _absorb(self, source: TopicPartition, buffer: _Buffer, fetched: Fetched) -> None:
        buffer.absorb(fetched)
        if sum(one.bytes_held() for one in self._buffers.values()) > AHEAD_BYTES_MAX:
            # What was fetched ahead for others is fetched again when it is wanted.
            self._buffers = {source: buffer}

    def _gone(self, source: TopicPartition, offset: int, deadline: Deadline) -> bool:
        return offset < bounds(self._wire, source, deadline)[0]
