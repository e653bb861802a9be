"""The spool on disk: two queues of log entries, crashes and the rest, and what a start needs to know without Kafka.

It is an `EmbeddedLog` of its own: an fsync before the acknowledgement, one owner process, offsets never used twice, a
damaged record noticed. The invariants: the entries of one flush are there whole or not at all; a partition of a device
topic lies in one queue only, in the order it was written, its ticks among its reports, so a tick means behind the spool
what it means before it; nothing leaves but by `done`.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ingest.clock import Clock
from ingest.gateway.spool.known import KNOWN_TOPIC, Known
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry, LogError, LogFullError, LogUnavailableError, OffsetGoneError, TopicPartition
from ingest.log.schema import remove_files
from ingest.log.specs import TopicSpec
from ingest.topics import Topics

logger = logging.getLogger(__name__)

CRASHES = TopicPartition("spool.crashes", 0)
REST = TopicPartition("spool.rest", 0)
# In the order in which they are drained.
QUEUES = (CRASHES, REST)
PIECE_BYTES_MAX = 4 << 20
# What one append to the log behind takes at most: after a failed one, this much may be there twice.
DRAIN_BYTES_MAX = 4 << 20
_DRAIN_RECORDS_MAX = 256
_TAIL_BYTES_MAX = 16 << 20
_SPECS = (TopicSpec(CRASHES.topic, 1), TopicSpec(REST.topic, 1), TopicSpec(KNOWN_TOPIC, 1, compacted=True))


class _Piece(msgspec.Struct, array_like=True):
    """One record of a queue: a part of a flush.

    Attributes:
        ends: how many flushes end with this piece; what is counted as drained.
        entries: topic, partition, key and value of each.
    """

    ends: int
    entries: list[tuple[str, int, bytes | None, bytes | None]]


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Piece)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is to be drained next.

    Attributes:
        queue: where it lies.
        end: the offset behind it.
        flushes: how many flushes end in it.
        entries: the entries, in order.
    """

    queue: TopicPartition
    end: int
    flushes: int
    entries: list[Entry]


class Spool:
    """The spool's directory. One thread puts, another takes."""

    def __init__(self, directory: Path, bytes_max: int, topics: Topics, clock: Clock) -> None:
        """Open or create the spool.

        Args:
            directory: where it lives; no other process may use it.
            bytes_max: most bytes stored, compressed as they are; the file may be larger by free pages and its
                write-ahead log, together 128 MiB at most.
            topics: the lane's names.
            clock: the wall clock, for the age of what waits.

        Raises:
            LogError: another process owns the directory, or the disk can't be used.
        """
        self.bytes_max = bytes_max
        self._directory = directory
        self._topics = topics
        self._crashes = topics.name("crashes")
        self._clock = clock
        # Set while new files are made; what was noted has to get into them.
        self._anew: list[Entry] | None = None
        self._open()

    def _open(self) -> None:
        log = EmbeddedLog(
            self._directory, _SPECS, self._clock, tail_bytes_max=_TAIL_BYTES_MAX, bytes_max=self.bytes_max
        )
        self._log = log
        self.known = Known(log, self._topics)
        self._positions = {queue: log.bounds(queue)[0] for queue in QUEUES}
        self._oldest: dict[TopicPartition, tuple[int, int]] = {}

    def put(self, entries: Sequence[Entry]) -> None:
        """Keep one flush, durably.

        Raises:
            LogFullError: there is no room for it, by the bound or on the disk; nothing of it was kept.
        """
        crashes = [entry for entry in entries if entry.topic == self._crashes]
        rest = [entry for entry in entries if entry.topic != self._crashes]
        kept = [*_pieces(CRASHES, crashes, ends=not rest), *_pieces(REST, rest, ends=True)]
        try:
            self._log.append(kept + self.known.entries_of(entries))
        except LogFullError as error:
            raise LogFullError(f"the spool is full ({error}): bring Kafka back, or raise spool_bytes_max") from error
        except LogUnavailableError as error:
            raise LogFullError(f"the spool can't be written ({error}): free its disk, or bring Kafka back") from error

    def take(self, *, little: bool = False) -> Waiting | None:
        """Return what is to be drained next, crashes first; None when nothing waits. The same until `done`.

        Args:
            little: take one piece only: to try whether the log behind is back.

        Raises:
            LogError: the spool can't be read.
        """
        for queue in QUEUES:
            position = self._positions[queue]
            records = self._log.read(queue, position, 1 if little else _DRAIN_RECORDS_MAX, DRAIN_BYTES_MAX)
            if records:
                pieces = [_decoder.decode(record.value or b"") for record in records]
                entries = [Entry(*entry) for piece in pieces for entry in piece.entries]
                return Waiting(queue, records[-1].offset + 1, sum(piece.ends for piece in pieces), entries)
        return None

    def done(self, taken: Waiting) -> None:
        """Drop what was taken: the log behind has it.

        Raises:
            LogUnavailableError: the disk refused. What was taken is not given again by this process all the same; the
                next `done`, or `tidy`, drops it.
        """
        self._positions[taken.queue] = taken.end
        self._log.trim(taken.queue, taken.end)

    def tidy(self) -> None:
        """Drop what is done and was not dropped yet, and give free disk back; call it now and then.

        Raises:
            LogUnavailableError: the disk refused; call again.
        """
        for queue, position in self._positions.items():
            self._log.trim(queue, position)
        self._log.maintain()

    def start_over(self) -> None:
        """Delete the files of an empty spool and begin new ones: what a disk that it filled up leaves to do.

        A full disk has no room for writing down that something was deleted. Nobody may put meanwhile.

        Raises:
            LogError: something waits, or the disk takes not even new files; call again.
        """
        if self._anew is None:
            if not self.empty:
                raise LogError("the spool is not empty: drain it first")
            self._anew = self.known.entries()
            self._log.close()
        remove_files(self._directory)
        self._open()
        self.known.restore(self._anew)
        self._anew = None
        logger.warning("the spool's disk was full: its files were deleted, once they were drained, and made anew")

    @property
    def untidy(self) -> bool:
        """Tell whether the disk still holds what was drained."""
        return self.empty and (self._anew is not None or self.stored_bytes > 0)

    @property
    def empty(self) -> bool:
        """Tell whether nothing waits."""
        if self._anew is not None:
            return True
        try:
            return all(self._log.bounds(queue)[1] == position for queue, position in self._positions.items())
        except LogUnavailableError:
            return True  # closed, to be made anew

    @property
    def stored_bytes(self) -> int:
        """Return the bytes that wait, as stored."""
        try:
            return sum(self._log.stored_bytes(queue) for queue in QUEUES)
        except LogUnavailableError:
            return 0  # closed, to be made anew

    def oldest_seconds(self) -> float:
        """Return the age of the oldest flush that waits; 0 when none does."""
        found = [at_ms for queue in QUEUES if (at_ms := self._oldest_ms(queue)) is not None]
        return max(0.0, (self._clock.now_ms() - min(found)) / 1000) if found else 0.0

    def _oldest_ms(self, queue: TopicPartition) -> int | None:
        position = self._positions[queue]
        offset, at_ms = self._oldest.get(queue, (-1, 0))
        if offset != position:
            try:
                records = self._log.read(queue, position, 1)
            except (OffsetGoneError, LogUnavailableError):
                return None  # drained meanwhile, by the other thread
            if not records:
                return None
            at_ms = records[0].appended_at_ms
            self._oldest[queue] = position, at_ms
        return at_ms

    def close(self) -> None:
        """Close the files; what waits is drained by the next process."""
        self._log.close()


def _pieces(queue: TopicPartition, entries: Sequence[Entry], *, ends: bool) -> Iterator[Entry]:
    """Yield the records that hold the entries, none of them much larger than `PIECE_BYTES_MAX`."""
    held: list[tuple[str, int, bytes | None, bytes | None]] = []
    size_bytes = 0
    for entry in entries:
        size = len(entry.value or b"")
        if held and size_bytes + size > PIECE_BYTES_MAX:
            yield Entry(queue.topic, queue.partition, None, _encode(_Piece(0, held)))
            held, size_bytes = [], 0
        held.append((entry.topic, entry.partition, entry.key, entry.value))
        size_bytes += size
    if held:
        yield Entry(queue.topic, queue.partition, None, _encode(_Piece(int(ends), held)))
