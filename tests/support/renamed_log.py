"""A log whose topics have other names underneath, so that many tests of fixed topic names share one Kafka broker."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ingest.log.interface import Entry, Fence, Log, Record, TopicPartition
from ingest.log.specs import TopicSpec


def renamed(specs: Sequence[TopicSpec], prefix: str) -> tuple[TopicSpec, ...]:
    """Return the specs with the prefix before each name."""
    return tuple(replace(spec, name=prefix + spec.name) for spec in specs)


class RenamedLog:
    """Passes every call on, with the prefix before each topic's name."""

    def __init__(self, log: Log, prefix: str) -> None:
        self.inner = log
        self._prefix = prefix

    def named(self, source: TopicPartition) -> TopicPartition:
        """Return the partition as it is named underneath."""
        return TopicPartition(self._prefix + source.topic, source.partition)

    def append(self, entries: Sequence[Entry], fence: Fence | None = None) -> list[int]:
        return self.inner.append([entry._replace(topic=self._prefix + entry.topic) for entry in entries], fence)

    def read(
        self, source: TopicPartition, offset: int, max_records: int = 500, max_bytes: int = 8 << 20
    ) -> list[Record]:
        return self.inner.read(self.named(source), offset, max_records, max_bytes)

    def bounds(self, source: TopicPartition) -> tuple[int, int]:
        return self.inner.bounds(self.named(source))

    def claim(self, name: str) -> Fence:
        return self.inner.claim(name)

    def check(self, fence: Fence) -> None:
        self.inner.check(fence)

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], fence: Fence | None = None) -> None:
        self.inner.commit(group, {self.named(source): offset for source, offset in offsets.items()}, fence)

    def committed(self, group: str, source: TopicPartition) -> int | None:
        return self.inner.committed(group, self.named(source))

    def wait(self, positions: Mapping[TopicPartition, int], timeout_seconds: float) -> bool:
        return self.inner.wait({self.named(source): offset for source, offset in positions.items()}, timeout_seconds)

    def close(self) -> None:
        self.inner.close()
