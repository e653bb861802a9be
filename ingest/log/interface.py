"""What a log is: ordered, durable, partitioned records with fenced writers.

Two kinds implement it: the embedded one on SQLite and Kafka's. `MemoryLog` beside this file is the in-memory twin. One
contract suite (`tests/contract`) holds all of them to the words written here.

What a caller must not assume: that offsets are dense (compaction and retention leave holes; appended records are
consecutive), that `read` returns everything there is, or that a record is still there once its retention has passed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Record(NamedTuple):
    """One record as read.

    Attributes:
        offset: its place in the partition; grows, and is never used twice.
        key: what compaction goes by; None in topics that are not compacted.
        value: the bytes as appended; None is a tombstone.
        appended_at_ms: the log's own time of append, in milliseconds since the epoch.
    """

    offset: int
    key: bytes | None
    value: bytes | None
    appended_at_ms: int


class Entry(NamedTuple):
    """One record to append."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Fence:
    """A writer's claim on a name; a later claim on the same name makes this one stale.

    Attributes:
        name: what is claimed, for instance `grouping/3`.
        epoch: grows with every claim.
    """

    name: str
    epoch: int


class LogError(Exception):
    """The log could not do what was asked; the message says what to do."""


class FencedError(LogError):
    """Somebody claimed this writer's name after it: stop writing, another owner lives."""


class LogUnavailableError(LogError):
    """The log cannot take or give records now; nothing was acknowledged. Try again."""


class LogFullError(LogUnavailableError):
    """The log holds as many bytes as it may, or its disk does; nothing was acknowledged. Try again later."""


class OffsetGoneError(LogError):
    """The offset asked for lies before the partition's first one: retention or compaction took it."""


class UnknownTopicError(LogError):
    """No such topic or partition was created."""


class Log(Protocol):
    """Ordered, durable, partitioned records."""

    def append(self, entries: Sequence[Entry], fence: Fence | None = None) -> list[int]:
        """Append all entries or none, durably, and return their offsets in the order given.

        Without a fence, Kafka keeps `all or none` only for what is refused: where it fails half-way, any part of the
        entries may be there, and the caller, who was told nothing was acknowledged, appends them again.

        Raises:
            LogError: a compacted topic's record has no key, or a value is too large; nothing was appended.
            FencedError: `fence` is stale; nothing was appended.
            UnknownTopicError: a topic or partition does not exist; nothing was appended.
            LogUnavailableError: the log could not write; nothing was acknowledged.
        """
        ...

    def read(
        self, source: TopicPartition, offset: int, max_records: int = 500, max_bytes: int = 8 << 20
    ) -> list[Record]:
        """Return records from `offset` on, in order: at least one if any is there, within the bounds otherwise.

        Raises:
            OffsetGoneError: retention has deleted records at or after `offset` (holes left by compaction are no gap).
            UnknownTopicError: there is no such topic or partition.
        """
        ...

    def bounds(self, source: TopicPartition) -> tuple[int, int]:
        """Return the first offset that can be read without a gap, and the offset the next record will get."""
        ...

    def claim(self, name: str) -> Fence:
        """Claim `name` for one writer: every earlier claim on it is stale from now on."""
        ...

    def check(self, fence: Fence) -> None:
        """Return if nobody has claimed the fence's name since; what a writer to something else than the log asks first.

        Raises:
            FencedError: `fence` is stale.
            LogUnavailableError: the log can't tell now.
        """
        ...

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], fence: Fence | None = None) -> None:
        """Record, durably, the next offset that `group` would read from each partition.

        Raises:
            FencedError: `fence` is stale; nothing was committed.
        """
        ...

    def committed(self, group: str, source: TopicPartition) -> int | None:
        """Return what `group` last committed for the partition, or None."""
        ...

    def wait(self, positions: Mapping[TopicPartition, int], timeout_seconds: float) -> bool:
        """Block until a partition has a record at or after its position; return False when the time ran out.

        Also returns True when retention has passed a position: `read` raises then; sleeping on would be blindness.
        """
        ...

    def close(self) -> None:
        """Release everything; a closed log raises `LogUnavailableError`."""
        ...
