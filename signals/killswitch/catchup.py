"""Whether a stage has read what was said and asked before: looked up in the log itself, not in what was pushed.

Beside the signals stage; leases are granted only by a process that has. Every few seconds the ends of the inputs are
noted, and once the stage has read up to them, all that lay there at that moment has been obeyed. Invariant: `fresh`
says yes only if everything that the log held at a moment at most `within_seconds` ago was applied.
"""

from collections.abc import Callable, Sequence

from ingest.clock import Clock
from ingest.log.interface import Log, LogUnavailableError, OffsetGoneError, TopicPartition


class CatchUp:
    """Watches over the inputs of one stage; used by the thread of its Owner."""

    def __init__(
        self,
        log: Log,
        sources: Sequence[TopicPartition],
        position: Callable[[TopicPartition], int],
        clock: Clock,
        within_seconds: float,
    ) -> None:
        """Begin knowing nothing: not fresh.

        Args:
            log: asked for ends of inputs, twice within `within_seconds`.
            sources: the inputs.
            position: gives the next offset of an input that the stage will apply.
            clock: the wall clock.
            within_seconds: how long ago the moment may be up to which all was read.
        """
        self._log, self._sources, self._position, self._clock = log, tuple(sources), position, clock
        self._within_ms = int(within_seconds * 1000)
        self._bounds: dict[TopicPartition, tuple[int, int]] = {}
        self._ends_at_ms: int | None = None
        self._read_at_ms: int | None = None

    def fresh(self) -> bool:
        """Look, where it is time to, and tell."""
        now_ms = self._clock.now_ms()
        try:
            if self._ends_at_ms is None and not self._within(now_ms, self._within_ms // 2):
                self._bounds = {source: self._log.bounds(source) for source in self._sources}
                self._ends_at_ms = now_ms
            if self._ends_at_ms is not None and all(self._reached(source) for source in self._sources):
                self._read_at_ms, self._ends_at_ms = self._ends_at_ms, None
        except (LogUnavailableError, OffsetGoneError):
            # Whoever steps the stage meets the same and says so; here it only means that nothing is known.
            return False
        return self._within(now_ms, self._within_ms)

    def _within(self, now_ms: int, limit_ms: int) -> bool:
        return self._read_at_ms is not None and 0 <= now_ms - self._read_at_ms <= limit_ms

    def _reached(self, source: TopicPartition) -> bool:
        first, end = self._bounds[source]
        position = max(first, self._position(source))
        if end <= position:
            return True
        # Marks of transactions and what compaction took are offsets without a record: nobody will read them.
        records = self._log.read(source, position, 1)
        if not records or records[0].offset >= end:
            self._bounds[source] = (first, first)
            return True
        return False
