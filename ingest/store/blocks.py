"""Where the sink stands: the offsets of each partition's latest block, kept in the store itself.

The plan of a block is written before the block. So at start the latest block of each partition is either known to be
complete (its end was committed to the log after the insert) or in doubt: then it is written again with the same
offsets.
The invariant: the first offset of a block never changes once its plan is written, however often the block is written.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ingest.log.interface import Log, TopicPartition
from ingest.store.interface import Store, StoreMismatchError


class Span(NamedTuple):
    """The offsets of one partition's part of a block: `first` is the first read, `end` the one after the last."""

    first: int
    end: int


class Standing(NamedTuple):
    """What the store knows of one partition at start.

    Attributes:
        position: the offset to read on from.
        doubtful: the latest block, where it may be incomplete.
    """

    position: int
    doubtful: Span | None


class Plans:
    """The table `sink_blocks` of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save(self, spans: Mapping[TopicPartition, Span]) -> None:
        """Write the plan of the next block; a single insert, so all of it or nothing.

        Raises:
            StoreError: it failed and may have been written or not.
        """
        self._store.insert(
            "sink_blocks",
            {
                "topic": [source.topic for source in spans],
                "partition": [source.partition for source in spans],
                "from_offset": [span.first for span in spans.values()],
                "to_offset": [span.end for span in spans.values()],
            },
        )

    def load(self) -> dict[TopicPartition, Span]:
        """Return the latest planned span of each partition."""
        found = self._store.query("SELECT topic, partition, from_offset, to_offset FROM sink_blocks FINAL")
        return {
            TopicPartition(str(topic), int(partition)): Span(int(first), int(end))
            for topic, partition, first, end in found.rows
        }

    def standing(self, log: Log, group: str, sources: Iterable[TopicPartition]) -> dict[TopicPartition, Standing]:
        """Return where to go on in each partition, and which blocks to write again first.

        Raises:
            StoreMismatchError: the store was filled from another log.
            LogError: the log cannot be read.
        """
        planned = self.load()
        standing = {}
        for source in sources:
            begin, end = log.bounds(source)
            span = planned.get(source)
            if span is None:
                standing[source] = Standing(begin, None)
                continue
            if span.end > end:
                raise StoreMismatchError(
                    f"the store holds {source.topic}/{source.partition} up to offset {span.end}, but the log ends at "
                    f"{end}: it was filled from another log. Move the store's folder away, or put its log back"
                )
            complete = log.committed(group, source) == span.end
            standing[source] = Standing(span.end, None if complete else span)
        return standing
