"""Words of progress for tests: made with few fields, and appended to a log in memory."""

from typing import Any

import msgspec

from ingest.clock import DrivenClock
from ingest.log.interface import Entry, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.progress import OwnerWord
from ingest.topics import Topics

NOW_MS = 1_800_000_000_000


def word(owner: str, **fields: Any) -> OwnerWord:
    values: dict[str, Any] = {"worker": "w1", "generation": 1, "at_ms": NOW_MS, "newest_ms": NOW_MS, **fields}
    return OwnerWord(owner=owner, **values)


class WordLog:
    """A log in memory with the words of a few owners."""

    def __init__(self, keyed_partitions: int = 1, lane: str = "live") -> None:
        self.clock = DrivenClock(NOW_MS)
        self.topics = Topics(lane, device_partitions=2, keyed_partitions=keyed_partitions)
        self.log = MemoryLog(topic_specs(self.topics), self.clock)

    def say(self, owner: str, **fields: Any) -> None:
        said = msgspec.json.encode(word(owner, **fields))
        self.log.append([Entry(self.topics.name("progress"), 0, owner.encode(), said)])

    def put(self, topic: str, partition: int = 0, value: bytes = b"{}") -> int:
        """Append one record and return the offset behind it."""
        (offset,) = self.log.append([Entry(self.topics.name(topic), partition, b"key", value)])
        return offset + 1

    def source(self, topic: str, partition: int = 0) -> TopicPartition:
        return TopicPartition(self.topics.name(topic), partition)

    def place(self, topic: str, partition: int = 0) -> str:
        return f"{self.topics.name(topic)}/{partition}"
