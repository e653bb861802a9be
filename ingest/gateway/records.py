"""From what a flush holds to log entries: pure, run in the writer's thread.

The order within a flush is the order of the world: rollouts and their notices, then the reports that may have revealed
them, then the tick that says nothing older is to come. The invariant: a batch holds reports of one partition only,
and no record holds more than `REPORTS_PER_RECORD_MAX` reports or, where it can be split, more than `RECORD_BYTES_MAX`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from ingest.activity import ActivityBatch, ActivityBuffer, pack, unpack
from ingest.events import Batch, Report, RolloutNotice, Tick, encoder
from ingest.log.interface import Entry
from ingest.rollouts import Rollout
from ingest.topics import Topics

REPORTS_PER_RECORD_MAX = 4000
RECORD_BYTES_MAX = 1 << 20
PUSHED_PER_NOTICE_MAX = 4000
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class PushedList:
    """One declared list of devices, by partition.

    Attributes:
        digest: names the list by its content, so that it is not counted twice.
        from_ms: from when these devices count as exposed.
        by_partition: pseudonyms of each partition.
    """

    digest: str
    from_ms: int
    by_partition: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        """Return how many devices the list names."""
        return sum(map(len, self.by_partition))


@dataclass(frozen=True, slots=True)
class Announcement:
    """A rollout to be written, and whether the device partitions must hear of it.

    Attributes:
        notify: a notice goes to every activity partition, with or without pushed devices.
    """

    rollout: Rollout
    notify: bool = True
    pushed: tuple[PushedList, ...] = ()


@dataclass(slots=True)
class Flush:
    """What one atomic append carries: reports by partition, announcements and a tick."""

    received_at_ms: int
    activity: Sequence[ActivityBuffer] = ()
    crashes: Sequence[list[Report]] = ()
    announcements: list[Announcement] = field(default_factory=list)
    tick_at_ms: int | None = None
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class RecordWriter:
    """Knows the topic names and signs records with the gateway's name."""

    topics: Topics
    gateway: str

    def entries(self, flush: Flush) -> list[Entry]:
        """Return the entries of one flush, in the order in which they must lie in the log."""
        entries: list[Entry] = []
        for announcement in flush.announcements:
            entries.extend(self._announce(announcement))
        topic = self.topics.name("activity")
        for partition, buffer in enumerate(flush.activity):
            for batch in buffer.batches(self.gateway, flush.received_at_ms):
                entries.extend(Entry(topic, partition, None, value) for value in self._columns(batch))
        topic = self.topics.name("crashes")
        for partition, reports in enumerate(flush.crashes):
            values = self._rows(reports, flush.received_at_ms)
            entries.extend(Entry(topic, partition, None, value) for value in values)
        if flush.tick_at_ms is not None:
            entries.extend(self._ticks(flush.tick_at_ms, flush.leaving))
        return entries

    def _columns(self, batch: ActivityBatch) -> Iterator[bytes]:
        value = encoder.encode(batch)
        if len(value) <= RECORD_BYTES_MAX or len(batch) == 1:
            yield value
        else:
            yield from _fit(unpack(batch), lambda part: pack(part, self.gateway, batch.received_at_ms))

    def _rows(self, reports: list[Report], received_at_ms: int) -> Iterator[bytes]:
        for start in range(0, len(reports), REPORTS_PER_RECORD_MAX):
            part = reports[start : start + REPORTS_PER_RECORD_MAX]
            yield from _fit(
                part, lambda part: Batch(gateway=self.gateway, received_at_ms=received_at_ms, reports=list(part))
            )

    def _ticks(self, at_ms: int, leaving: bool) -> Iterator[Entry]:
        value = encoder.encode(Tick(gateway=self.gateway, at_ms=at_ms, leaving=leaving))
        for word in ("activity", "crashes"):
            topic = self.topics.name(word)
            for partition in range(self.topics.device_partitions):
                yield Entry(topic, partition, None, value)

    def _announce(self, announcement: Announcement) -> Iterator[Entry]:
        rollout = announcement.rollout
        yield Entry(self.topics.name("rollouts"), 0, rollout.rollout.encode(), encoder.encode(rollout))
        if not announcement.notify:
            return
        topic = self.topics.name("activity")
        for partition in range(self.topics.device_partitions):
            lists = [pushed for pushed in announcement.pushed if pushed.by_partition[partition]]
            if not lists:
                yield Entry(topic, partition, None, encoder.encode(_notice(rollout)))
            for pushed in lists:
                names = pushed.by_partition[partition]
                for start in range(0, len(names), PUSHED_PER_NOTICE_MAX):
                    part = names[start : start + PUSHED_PER_NOTICE_MAX]
                    yield Entry(topic, partition, None, encoder.encode(_notice(rollout, part, pushed.from_ms)))


def _fit(reports: Sequence[R], batch_of: Callable[[Sequence[R]], ActivityBatch | Batch]) -> Iterator[bytes]:
    """Encode a batch, and halve what came out too large, which is rare."""
    value = encoder.encode(batch_of(reports))
    if len(value) <= RECORD_BYTES_MAX or len(reports) == 1:
        yield value
        return
    middle = len(reports) // 2
    yield from _fit(reports[:middle], batch_of)
    yield from _fit(reports[middle:], batch_of)


def _notice(rollout: Rollout, pushed: Sequence[str] = (), from_ms: int = 0) -> RolloutNotice:
    return RolloutNotice(
        rollout=rollout.rollout,
        vendor=rollout.vendor,
        product=rollout.product,
        version=rollout.version,
        origin_ms=rollout.origin_ms,
        pushed=list(pushed),
        pushed_from_ms=from_ms,
        closed=rollout.closed,
        declared=True if rollout.declared_by else msgspec.UNSET,
    )
