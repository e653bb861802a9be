"""A stage for tests of the Owner: counts records by their value, in chunks written round-robin.

Shared by the contract tests and by the child process that is killed. `SPECS` are the topics it needs.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ingest.log.interface import Entry, Record, TopicPartition
from ingest.log.specs import TopicSpec

IN = (TopicPartition("in", 0), TopicPartition("in", 1))
OUT = TopicPartition("out", 0)
STATE = TopicPartition("state", 0)
SPECS = (TopicSpec("in", 2, retention_ms=1000), TopicSpec("out", 1), TopicSpec("state", 1, compacted=True))
CHUNKS = 4


class Chunk(msgspec.Struct):
    """Counts of the keys of one chunk, and what they have seen of each input."""

    counts: dict[str, int] = {}
    offsets: dict[int, int] = {}


class CountingStage:
    """Counts records by their value, in `CHUNKS` chunks that are written round-robin, one a snapshot.

    A chunk remembers the offsets it has counted to, so after a restart each chunk passes over what it knows.
    """

    inputs: Sequence[TopicPartition] = IN

    def __init__(self) -> None:
        self.chunks = [Chunk() for _ in range(CHUNKS)]
        self.written: list[dict[int, int]] = [{} for _ in range(CHUNKS)]
        self.turn = 0
        self.changed: set[str] = set()

    def restore(self, entries: Iterable[tuple[bytes, bytes]]) -> Mapping[TopicPartition, int]:
        for key, value in entries:
            self.chunks[int(key)] = msgspec.json.decode(value, type=Chunk)
            self.written[int(key)] = dict(self.chunks[int(key)].offsets)
        return self.oldest()

    def apply(self, source: TopicPartition, records: Sequence[Record]) -> None:
        for record in records:
            word = (record.value or b"").decode()
            chunk = self.chunks[int(word) % CHUNKS]
            if record.offset >= chunk.offsets.get(source.partition, 0):
                chunk.counts[word] = chunk.counts.get(word, 0) + 1
                self.changed.add(word)
        for chunk in self.chunks:
            chunk.offsets[source.partition] = max(chunk.offsets.get(source.partition, 0), records[-1].offset + 1)

    def outputs(self) -> Sequence[Entry]:
        changed, self.changed = self.changed, set()
        return [Entry("out", 0, word.encode(), b"%d" % self.count(word)) for word in sorted(changed)]

    def snapshot(self, now_ms: int) -> Sequence[Entry]:
        self.turn = (self.turn + 1) % CHUNKS
        chunk = self.chunks[self.turn]
        self.written[self.turn] = dict(chunk.offsets)
        return [Entry("state", 0, b"%d" % self.turn, msgspec.json.encode(chunk))]

    def oldest(self) -> Mapping[TopicPartition, int]:
        return {source: min(written.get(source.partition, 0) for written in self.written) for source in IN}

    def count(self, word: str) -> int:
        return self.chunks[int(word) % CHUNKS].counts.get(word, 0)
