"""The sink: a consumer group of its own that copies the lane's topics into the store, in one thread.

Reads the log, decodes into a block, and writes it: plan, rows, dead letters, commit, in this order. On one machine one
sink owns every partition; on many, each worker's sink owns some of them, share by share, and still writes one block.
Invariants: exact under SIGKILL between any two of these steps (see `blocks`); at most `rows_max` rows and one read more
are held, the log keeps the backlog; an insert that fails is tried again until it succeeds or the sink is stopped;
nothing is skipped; no plan is saved for a share whose fence is known to be another's.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ingest.clock import Clock
from ingest.deadletter import DeadReason, entries_of, letter_of
from ingest.log.feed import Feed
from ingest.log.interface import Fence, FencedError, Log, LogError, OffsetGoneError, Record, TopicPartition
from ingest.metrics import Metrics
from ingest.store.blocks import Plans, Span
from ingest.store.decode import decode_into, decoders
from ingest.store.interface import Store, StoreError, StoreMismatchError
from ingest.store.rows import Block
from ingest.topics import TOPICS, Topics

GROUP = "store"
# In this order of reading: crashes before the flood of check-ins.
WORDS = ("crashes", "killswitch", "verdicts", "alerts", "pagings", "rollouts", "activity")
# How often an idle sink that is fed asks the log for what was not pushed.
LOOK_SECONDS = 5.0
_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SinkLimits:
    """How much a block may hold and how long it may wait.

    Attributes:
        rows_max: rows to insert in one block; the buffer's bound.
        reports_max: reports in one block, those only counted too: what is read again at most after a kill.
        linger_seconds: how long crashes and history wait for company.
        activity_linger_seconds: the same for activity alone: longer, so that check-ins fold into fewer minute rows.
        read_records_max: records of one partition in one read.
        read_bytes_max: bytes of one partition in one read.
        backoff_seconds: first pause after a failure; doubles.
        backoff_seconds_max: longest pause.
    """

    rows_max: int = 100_000
    reports_max: int = 400_000
    linger_seconds: float = 1.0
    activity_linger_seconds: float = 3.0
    read_records_max: int = 128
    read_bytes_max: int = 4 << 20
    backoff_seconds: float = 0.1
    backoff_seconds_max: float = 10.0


class SinkStoppedError(Exception):
    """The sink was told to stop while the store or the log refused; the block is written again at the next start."""


# A share's name, which its fence has too, to the partitions it reads.
Shares = Mapping[str, Sequence[TopicPartition]]


def shares_of(topics: Topics) -> dict[str, list[TopicPartition]]:
    """Return the shares that several sinks divide among them: `store/3` has partition 3 of every topic that has one."""
    by_word = {topic.word: topic for topic in TOPICS}
    shares: dict[str, list[TopicPartition]] = {}
    for word in WORDS:
        for partition in range(topics.partitions(by_word[word])):
            shares.setdefault(f"{GROUP}/{partition}", []).append(TopicPartition(topics.name(word), partition))
    return shares


class Sink:
    """Fills the store from the log; `run` in a thread, or `recover` and `step` by hand in tests."""

    def __init__(
        self,
        log: Log,
        store: Store,
        topics: Topics,
        metrics: Metrics,
        clock: Clock,
        limits: SinkLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        shares: Shares | None = None,
        group: str = GROUP,
    ) -> None:
        """Take the collaborators; nothing is read or written before `recover`.

        Args:
            log: what is copied; a `Feed` where a consumer group pushes.
            store: where to.
            topics: of the lane.
            metrics: counts rows and failures.
            clock: the wall clock, for dead letters.
            limits: of blocks.
            monotonic: seconds.
            shares: the partitions to copy, where other sinks copy others; None for all of them, claimed now.
            group: the consumer group whose commits prove that a block is complete.
        """
        self._log = log
        self._feed = log if isinstance(log, Feed) else None
        self._group = group
        self._store = store
        self._plans = Plans(store)
        self._metrics = metrics
        self._clock = clock
        self._limits = limits or SinkLimits()
        self._monotonic = monotonic
        self._stop = threading.Event()
        self._deadletter = topics.name("deadletter")
        decode = decoders()
        by_name = {topics.name(word): decode[word] for word in WORDS}
        everything = shares_of(topics) if shares is None else shares
        owned = {source for sources in everything.values() for source in sources}
        # In the order of `WORDS`, then by partition.
        order = list(by_name)
        self._decode = {s: by_name[s.topic] for s in sorted(owned, key=lambda s: (order.index(s.topic), s.partition))}
        self._activity = topics.name("activity")
        self._shares: Shares = {} if shares is None else shares
        self._fences: dict[TopicPartition, Fence] = {}
        if shares is None:
            self._fences = dict.fromkeys(self._decode, log.claim(f"{GROUP}/{topics.lane}"))
        self._positions: dict[TopicPartition, int] = {}
        self._flushed: dict[TopicPartition, int] = {}
        self._lost: list[str] = []
        self._beats = 0
        self._looked_at = monotonic()
        self._clear()

    def _clear(self) -> None:
        self._block = Block()
        self._spans: dict[TopicPartition, Span] = {}
        self._due: float | None = None

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """The offset to be read next from each partition."""
        return dict(self._positions)

    @property
    def flushed(self) -> Mapping[TopicPartition, int]:
        """The offset before which everything of each partition is in the store; any thread."""
        return self._flushed

    @property
    def lost(self) -> Sequence[str]:
        """The shares whose fence another sink has claimed: they are copied no more; any thread."""
        return tuple(self._lost)

    @property
    def beats(self) -> int:
        """Grows while this sink gets on, and while it asks a store or log that is away; any thread."""
        return self._beats

    # Life.

    def run(self) -> None:
        """Recover, then copy until `stop`; what was read by then is written before it returns.

        Raises:
            StoreMismatchError: the store was filled from another log.
            FencedError: another sink took over this store's consumer group, or every share.
        """
        try:
            self._insist(self.recover)
            while not self._stop.is_set():
                if not self._insist(self.step):
                    self._insist(self._wait)
            self.flush()
        except SinkStoppedError:
            _logger.warning("the sink stopped with a block unwritten; it is written at the next start")

    def stop(self) -> None:
        """Ask `run` to write what it has read and return; safe from any thread."""
        self._stop.set()

    def drain(self) -> None:
        """Copy everything that is in the log now, and write it."""
        while self.step():
            pass
        self.flush()

    def recover(self) -> None:
        """Find each partition's place and write the blocks that are in doubt again.

        Raises:
            StoreMismatchError: the store was filled from another log.
            StoreError: the store cannot be read.
            LogError: the log cannot be read.
        """
        # Claimed before the plans are read: whoever had a share may save none from now on.
        for name, sources in self._shares.items():
            if sources[0] not in self._fences:
                self._fences.update(dict.fromkeys(sources, self._log.claim(name)))
        if self._feed is not None:
            self._feed.catch_up()
        standing = self._plans.standing(self._log, self._group, self._decode)
        self._clear()
        for source, (position, doubtful) in standing.items():
            self._positions[source] = position if doubtful is None else doubtful.first
        # Not the doubtful blocks' ends yet: what is called flushed may be committed, which would prove them complete.
        self._flushed = dict(self._positions)
        for source, (_, doubtful) in standing.items():
            if doubtful is not None:
                while self._positions[source] < doubtful.end and self._read(source, doubtful.end):
                    pass
                self._positions[source] = doubtful.end
                self._spans[source] = doubtful
        if self._spans:
            _logger.info("writing the last block of %d partitions again", len(self._spans))
            self._write()

    # Reading.

    def step(self) -> bool:
        """Read each partition once, write when it is time, and tell whether anything was read."""
        progressed = False
        self._beats += 1
        for source in list(self._decode):
            if source not in self._decode or not self._has(source):
                continue
            if self._read(source, None):
                progressed = True
            if self._full():
                self.flush()
        if self._due is not None and self._monotonic() >= self._due:
            self.flush()
        return progressed

    def _has(self, source: TopicPartition) -> bool:
        # Asking Kafka for each of a hundred partitions in each turn would cost more than reading those that have some.
        return self._feed is None or self._feed.has(source, self._positions[source])

    def _full(self) -> bool:
        block = self._block
        return block.reports >= self._limits.reports_max or block.row_count() >= self._limits.rows_max

    def _read(self, source: TopicPartition, end: int | None) -> bool:
        """Read one partition from its position, up to `end` where given; tell whether the position moved."""
        position = self._positions[source]
        try:
            records = self._log.read(source, position, self._limits.read_records_max, self._limits.read_bytes_max)
        except OffsetGoneError:
            return self._skip_gap(source, position, end)
        if end is not None:
            records = [record for record in records if record.offset < end]
        if not records:
            return self._pass_hole(source, position) if end is None and self._feed is not None else False
        self._take(source, records)
        return True

    def _pass_hole(self, source: TopicPartition, position: int) -> bool:
        """Go on behind offsets that hold nothing: the mark of a transaction's end, what compaction took."""
        end = self._log.bounds(source)[1]
        # The end is asked before the second read, so nothing appended in between is passed with it.
        if end > position and not self._log.read(source, position, 1):
            self._positions[source] = end
        return False

    def _take(self, source: TopicPartition, records: list[Record]) -> None:
        span = self._spans.get(source)
        first = self._positions[source] if span is None else span.first
        decode = self._decode[source]
        for record in records:
            decode_into(decode, record, source, first, self._block)
        self._reached(source, first, records[-1].offset + 1)

    def _reached(self, source: TopicPartition, first: int, position: int) -> None:
        self._positions[source] = position
        self._spans[source] = Span(first, position)
        linger = self._limits.linger_seconds
        if source.topic == self._activity:
            linger = self._limits.activity_linger_seconds
        due = self._monotonic() + linger
        self._due = due if self._due is None else min(self._due, due)

    def _skip_gap(self, source: TopicPartition, position: int, end: int | None) -> bool:
        """Go on behind records that retention took before the sink had read them, and say so aloud."""
        begin, _ = self._log.bounds(source)
        detail = f"retention took offsets {position} to {begin - 1} before the store had them"
        _logger.error("%s/%d: %s; raise the log's retention or find what slows the store", *source, detail)
        gone = Record(position, None, None, self._clock.now_ms())
        self._block.dead.append(letter_of("store", source, gone, DeadReason.LOG_GAP, detail))
        span = self._spans.get(source)
        target = begin if end is None else min(begin, end)
        self._reached(source, position if span is None else span.first, target)
        return True

    def _wait(self) -> None:
        left = 0.25 if self._due is None else min(0.25, max(0.0, self._due - self._monotonic()))
        self._log.wait(self._positions, left)
        if self._feed is not None and self._monotonic() - self._looked_at >= LOOK_SECONDS:
            # A consumer that stands still would never say what it has not pushed.
            self._looked_at = self._monotonic()
            self._feed.catch_up()

    # Writing.

    def flush(self) -> None:
        """Write what was read: plan, rows, dead letters, commit.

        Raises:
            SinkStoppedError: told to stop while the store or the log refused.
            FencedError: another sink took over everything.
        """
        if self._spans and self._still_ours():
            self._insist(lambda: self._plans.save(self._spans))
            self._write()

    def _still_ours(self) -> bool:
        """Ask for each share in the block whether it is ours; if one is not, let go of it and of the block.

        What the others had in the block is read again: no plan speaks of it yet, so it is still any block's.
        """
        lost = [name for name, sources in self._shares.items() if self._is_lost(sources)]
        if not lost:
            return True
        for source, span in self._spans.items():
            self._positions[source] = span.first
        self._clear()
        for name in lost:
            _logger.warning("%s is another sink's now", name)
            for source in self._shares[name]:
                del self._decode[source], self._positions[source]
        self._lost += lost
        if not self._decode:
            raise FencedError(f"every share of this sink is another's now: {', '.join(self._lost)}")
        return False

    def _is_lost(self, sources: Sequence[TopicPartition]) -> bool:
        if not any(source in self._spans for source in sources):
            return False
        try:
            self._insist(lambda: self._log.check(self._fences[sources[0]]))
        except FencedError:
            return True
        return False

    def _write(self) -> None:
        for table, columns in self._block.columns().items():
            count = len(next(iter(columns.values())))
            started = self._monotonic()
            # The defaults bind this turn's values: the closure outlives the loop's variables only in appearance.
            self._insist(lambda table=table, columns=columns: self._store.insert(table, columns))  # type: ignore[misc]
            self._metrics.observe("store_insert_seconds", self._monotonic() - started)
            self._metrics.count("store_rows_total", count, table=table)
        if self._block.dead:
            entries = entries_of(self._block.dead, self._deadletter, self._metrics)
            self._insist(lambda: self._log.append(entries))
        ends = {source: span.end for source, span in self._spans.items()}
        for fence in {self._fences[source] for source in ends}:
            mine = {source: end for source, end in ends.items() if self._fences[source] == fence}
            self._insist(lambda mine=mine, fence=fence: self._log.commit(self._group, mine, fence))  # type: ignore[misc]
        self._flushed = {**self._flushed, **ends}
        self._clear()
        self._metrics.set("backlog_records", self._backlog(), stage="store")

    def _backlog(self) -> int:
        if self._feed is not None:
            return self._feed.waiting(self._positions)
        return sum(self._log.bounds(source)[1] - position for source, position in self._positions.items())

    def _insist(self, act: Callable[[], _T]) -> _T:
        """Do it until it succeeds, with growing pauses; a store or log that is away loses nothing."""
        pause = self._limits.backoff_seconds
        while True:
            self._beats += 1
            try:
                return act()
            except (FencedError, StoreMismatchError):
                raise
            except StoreError as error:
                self._metrics.count("store_failures_total")
                _logger.warning("the store refused and is asked again in %.1f s: %s", pause, error)
            except LogError as error:
                _logger.warning("the log refused and is asked again in %.1f s: %s", pause, error)
            if self._stop.wait(pause):
                raise SinkStoppedError
            pause = min(pause * 2, self._limits.backoff_seconds_max)
