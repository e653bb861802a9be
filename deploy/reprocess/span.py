"""A log as a reprocessing run sees it: a span of the source lane to read, its own lane to write, nothing else.

Stands between any `Log` and the Owners of the run. What it holds, whatever a stage does: an append outside the run's
own lane is refused before it reaches the log, and every name that is claimed and every group that commits carries the
lane, so that no fence and no commit of the source lane is touched. The source's topics end where `show_until` says, by
the log's own time of append: moved on in slices, all partitions and the rollouts come forward together, as they did
when they were written.
"""

from collections.abc import Mapping, Sequence

from ingest.log.interface import Entry, Fence, Log, LogError, Record, TopicPartition
from ingest.topics import SOURCE_WORDS, TOPICS, Topics


def offset_at(log: Log, source: TopicPartition, at_ms: int) -> int:
    """Return the offset of the first record appended at or after `at_ms`; the partition's end where there is none.

    Bisects over offsets, some twenty small reads for a million records: any log can do it, with holes or without. Times
    of append must not fall within the partition, which log-append time promises while the log's clock is not set back.
    """
    low, end = log.bounds(source)
    high = end
    while low < high:
        middle = (low + high) // 2
        records = log.read(source, middle, max_records=1)
        if not records or records[0].offset >= high or records[0].appended_at_ms >= at_ms:
            high = middle
        else:
            low = records[0].offset + 1
    # What was found may be a hole that compaction left: the first record at or behind it is the one.
    records = log.read(source, low, max_records=1) if low < end else []
    return records[0].offset if records else end


class SpanLog:
    """A span of `topics.source_lane`, readable, and `topics.lane`, writable; one thread uses it."""

    def __init__(self, log: Log, topics: Topics, from_ms: int) -> None:
        """Find where the span begins.

        Args:
            log: holds both lanes.
            topics: of the run: its lane, and the source lane that its reports and rollouts come from.
            from_ms: when the span begins, by the log's time of append. Rollouts are read from the beginning, since
                the log keeps only the latest word of each.

        Raises:
            ValueError: `topics` names no other lane as its source.
        """
        if topics.source_lane in ("", topics.lane):
            raise ValueError(f"lane {topics.lane} must take its reports from another lane")
        self._log = log
        self._lane = topics.lane
        self._until_ms = from_ms
        self._cut: dict[TopicPartition, Record] = {}
        declared = {topic.word: topic for topic in TOPICS}
        own = Topics(topics.lane, topics.device_partitions, topics.keyed_partitions)
        self._written = {own.name(word) for word in declared if word not in SOURCE_WORDS}
        self._first: dict[TopicPartition, int] = {}
        # Asked once: what is appended from now on lies behind the span, which ends in the past.
        self._last: dict[TopicPartition, int] = {}
        for word in SOURCE_WORDS:
            for partition in range(topics.partitions(declared[word])):
                source = TopicPartition(topics.name(word), partition)
                first, self._last[source] = log.bounds(source)
                self._first[source] = first if word == "rollouts" else offset_at(log, source, from_ms)

    @property
    def first(self) -> Mapping[TopicPartition, int]:
        """Where each partition of the source begins for this run."""
        return self._first

    def show_until(self, until_ms: int) -> None:
        """Let records appended before `until_ms` be read from now on."""
        self._until_ms = max(until_ms, self._until_ms)
        self._cut.clear()

    @property
    def next_ms(self) -> int | None:
        """When the first record that is not shown was appended; None where no reader has met one."""
        return min((record.appended_at_ms for record in self._cut.values()), default=None)

    def append(self, entries: Sequence[Entry], fence: Fence | None = None) -> list[int]:
        """Append to the run's own lane; see `Log.append`.

        Raises:
            LogError: an entry is for a topic outside of it; nothing was appended.
        """
        strange = {entry.topic for entry in entries} - self._written
        if strange:
            raise LogError(f"lane {self._lane} may not write to {', '.join(sorted(strange))}: that is another lane's")
        return self._log.append(entries, fence)

    def read(
        self, source: TopicPartition, offset: int, max_records: int = 500, max_bytes: int = 8 << 20
    ) -> list[Record]:
        """Return records; those of the source only as far as they are shown. See `Log.read`."""
        if source not in self._first:
            return self._log.read(source, offset, max_records, max_bytes)
        if offset >= self._end(source):
            return []
        records = self._log.read(source, offset, max_records, max_bytes)
        for place, record in enumerate(records):
            if record.appended_at_ms >= self._until_ms or record.offset >= self._last[source]:
                self._cut[source] = record
                return records[:place]
        return records

    def bounds(self, source: TopicPartition) -> tuple[int, int]:
        """Return the bounds; those of the source as far as it is shown. See `Log.bounds`."""
        if source not in self._first:
            return self._log.bounds(source)
        return self._first[source], self._end(source)

    def _end(self, source: TopicPartition) -> int:
        cut = self._cut.get(source)
        return self._last[source] if cut is None else cut.offset

    def wait(self, positions: Mapping[TopicPartition, int], timeout_seconds: float) -> bool:
        """Return whether there is something to read; never blocks on the source, whose span is in the log already."""
        shown = any(offset < self._end(source) for source, offset in positions.items() if source in self._first)
        others = {source: offset for source, offset in positions.items() if source not in self._first}
        return shown or (bool(others) and self._log.wait(others, timeout_seconds))

    def claim(self, name: str) -> Fence:
        """Claim a name of this lane's own; see `Log.claim`."""
        return self._log.claim(self._own(name))

    def check(self, fence: Fence) -> None:
        """Check a fence; see `Log.check`."""
        self._log.check(fence)

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], fence: Fence | None = None) -> None:
        """Commit for a group of this lane's own; see `Log.commit`."""
        self._log.commit(self._own(group), offsets, fence)

    def committed(self, group: str, source: TopicPartition) -> int | None:
        """Return what this lane's own group committed; see `Log.committed`."""
        return self._log.committed(self._own(group), source)

    def close(self) -> None:
        """Leave the log open: it is the caller's."""

    def _own(self, name: str) -> str:
        return f"{self._lane}.{name}"
