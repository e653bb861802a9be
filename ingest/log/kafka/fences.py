"""Fences: claims on names, and which of them is the newest.

A claim is a record on the topic `fences`, keyed by the name; its offset is the fence's epoch. It is written in a
transaction of the name's own transactional id, so that the moment it counts, brokers refuse the claimant before.
The invariant: a fence is good as long as no later claim on its name is on that topic.
"""

import threading
from collections.abc import Sequence

from ingest.claims import claim_decoder
from ingest.log.interface import Fence, FencedError, LogUnavailableError, Record, TopicPartition
from ingest.log.kafka.fetch import bounds, fetch
from ingest.log.kafka.wire import Deadline, Wire


class Claims:
    """The newest claim of each name, as far as it was read; read on with every question."""

    def __init__(self, source: TopicPartition) -> None:
        """Start at the topic's first record.

        Args:
            source: the only partition of the topic `fences`.
        """
        self.source = source
        self._lock = threading.Lock()
        self._position = 0
        self._newest: dict[str, int] = {}

    def require(self, fence: Fence, wire: Wire, deadline: Deadline) -> None:
        """Return if nobody has claimed the fence's name since. The caller holds the wire.

        Raises:
            FencedError: somebody has.
            LogUnavailableError: Kafka gave no answer in time.
        """
        newest = self._read_newest(fence.name, wire, deadline)
        if newest != fence.epoch:
            raise FencedError(
                f"{fence.name} was claimed again after epoch {fence.epoch}: stop writing, another owner lives"
            )

    def seen(self, name: str, epoch: int, wire: Wire, deadline: Deadline) -> bool:
        """Return whether readers see that claim, or a later one, by now."""
        newest = self._read_newest(name, wire, deadline)
        return newest is not None and newest >= epoch

    def _read_newest(self, name: str, wire: Wire, deadline: Deadline) -> int | None:
        if not self._lock.acquire(timeout=deadline.remaining()):
            raise LogUnavailableError("Kafka is slow to answer another thread's question for claims: try again")
        try:
            self._read_on(wire, deadline)
            return self._newest.get(name)
        finally:
            self._lock.release()

    def _read_on(self, wire: Wire, deadline: Deadline) -> None:
        while True:
            fetched = fetch(wire, self.source, self._position, deadline)
            if fetched.out_of_range:
                # A topic made anew: what was known of the old one is worth nothing.
                self._newest.clear()
                self._position = bounds(wire, self.source, deadline)[0]
                continue
            for batch in fetched.batches:
                self._note(list(batch.records(self._position)))
            self._position = fetched.next
            if not fetched.batches and fetched.next >= fetched.stable:
                return

    def _note(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.value is not None:
                self._newest[claim_decoder.decode(record.value).name] = record.offset
