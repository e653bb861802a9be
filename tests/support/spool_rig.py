"""A spooling log before a log in memory that goes away, answers slowly or forgets to answer when a test says so."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ingest.clock import Clock, DrivenClock
from ingest.events import Tick, encoder
from ingest.gateway.spool.log import SpoolingLog
from ingest.gateway.spool.store import Spool
from ingest.log.interface import Entry, Fence, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics

NOW_MS = 1_721_362_140_000
TOPICS = Topics("live", 2)
BYTES_MAX = 64 << 20


class AwayLog(MemoryLog):
    """`MemoryLog` that can take its time: an append waits until `go` is set, then happens."""

    def __init__(self, topics: Topics = TOPICS, clock: Clock | None = None) -> None:
        super().__init__(topic_specs(topics), clock or DrivenClock(NOW_MS))
        self.go = threading.Event()
        self.go.set()
        self.seconds = 0.0
        self.calls: list[list[Entry]] = []
        self.attempts = 0

    def append(self, entries: Sequence[Entry], fence: Fence | None = None) -> list[int]:
        self.attempts += 1
        assert self.go.wait(30)
        time.sleep(self.seconds)
        offsets = super().append(entries, fence)
        self.calls.append(list(entries))
        return offsets

    def values(self, word: str, partition: int = 0, topics: Topics = TOPICS) -> list[bytes]:
        """Return the values of one partition, in order."""
        records = self.read(TopicPartition(topics.name(word), partition), 0, 1_000_000, 1 << 40)
        return [record.value or b"" for record in records]


def entry(word: str, value: str | bytes, partition: int = 0, topics: Topics = TOPICS) -> Entry:
    """Return an entry of a topic of the lane."""
    data = value.encode() if isinstance(value, str) else value
    return Entry(topics.name(word), partition, b"key" if word == "rollouts" else None, data)


def ticks(at_ms: int, topics: Topics = TOPICS) -> list[Entry]:
    """Return a tick in both device topics of every partition."""
    value = encoder.encode(Tick(gateway="gateway-1", at_ms=at_ms))
    return [
        Entry(topics.name(word), partition, None, value)
        for word in ("activity", "crashes")
        for partition in range(topics.device_partitions)
    ]


def spooling(
    folder: Path,
    behind: MemoryLog,
    *,
    after_seconds: float = 0.2,
    bytes_max: int = BYTES_MAX,
    metrics: Metrics | None = None,
    clock: Clock | None = None,
    topics: Topics = TOPICS,
    monotonic: Callable[[], float] = time.monotonic,
) -> SpoolingLog:
    """Open the spool in `folder` before a log."""
    spool = Spool(folder / "spool", bytes_max, topics, clock or DrivenClock(NOW_MS))
    return SpoolingLog(
        behind,
        spool,
        metrics or Metrics(),
        after_seconds=after_seconds,
        retry_seconds=(0.01, 0.05),
        monotonic=monotonic,
    )


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until the condition holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold in time"
        time.sleep(0.005)
