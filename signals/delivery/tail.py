"""One thread that follows topics of the log and hands their records on, in order.

It feeds the views and the stream hub. Invariant: each handler gets every record of its partitions from the position it
began at, once and in order, except what retention took meanwhile.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from ingest.log.interface import Log, LogUnavailableError, OffsetGoneError, Record, TopicPartition

_LOGGER = logging.getLogger(__name__)
_WAIT_SECONDS = 0.5
_RETRY_SECONDS = 0.2

Handler = Callable[[TopicPartition, Sequence[Record]], None]


class Tail:
    """Follows partitions in a daemon thread."""

    def __init__(
        self, log: Log, handlers: Mapping[TopicPartition, Handler], positions: Mapping[TopicPartition, int]
    ) -> None:
        """Prepare to follow.

        Args:
            log: what is followed.
            handlers: who gets the records of a partition, most urgent first; called from the tail's thread.
            positions: where to begin; partitions without one are followed from their first record.
        """
        self._log = log
        self._handlers = dict(handlers)
        self._positions = {
            source: positions[source] if source in positions else log.bounds(source)[0] for source in handlers
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="signals-tail", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def catch_up(self) -> None:
        """Hand on everything that is there now; only before `start`."""
        while self._turn():
            pass

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if self._log.wait(self._positions, _WAIT_SECONDS):
                    self._turn()
            except LogUnavailableError as error:
                if not self._stop.is_set():
                    _LOGGER.warning("the log cannot be read, trying again: %s", error)
                self._stop.wait(_RETRY_SECONDS)

    def _turn(self) -> bool:
        moved = False
        for source, handler in self._handlers.items():
            position = self._positions[source]
            try:
                records = self._log.read(source, position)
            except OffsetGoneError as error:
                self._positions[source] = self._log.bounds(source)[0]
                _LOGGER.error("records of %s were deleted before they were read: %s", source, error)
                continue
            if records:
                handler(source, records)
                self._positions[source] = records[-1].offset + 1
                moved = True
            elif position < (end := self._log.bounds(source)[1]) and not self._log.read(source, position):
                # Compaction took all that was there.
                self._positions[source] = end
        return moved
