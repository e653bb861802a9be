"""Follow the rollouts topic while the gateway runs, so that what one gateway learns all of them know.

A thread reads, the event loop merges. The invariant: records are handed over in the log's order, each at least once,
from where the start left off; a log that is away only puts that off.
"""

import logging
import threading
from collections.abc import Callable, Sequence

from ingest.gateway.recover import decoded
from ingest.gateway.spool.log import SpoolingLog
from ingest.log.interface import Log, LogError, LogUnavailableError, OffsetGoneError, TopicPartition
from ingest.rollouts import Rollout
from ingest.topics import Topics

logger = logging.getLogger(__name__)

WAIT_SECONDS = 1.0
RETRY_SECONDS = 1.0


class RolloutFollower:
    """Reads the rollouts topic for ever, in a thread of its own."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        offset: int,
        deliver: Callable[[Sequence[Rollout]], None],
        spool: SpoolingLog | None = None,
    ) -> None:
        """Read from `offset` on, once started.

        Args:
            log: has the rollouts topic; it may be away.
            topics: the lane's names.
            offset: the first record to read.
            deliver: called from the thread with rollouts in the log's order.
            spool: gets a copy beside it, for a start without the log.
        """
        self._log = log
        self._source = TopicPartition(topics.name("rollouts"), 0)
        self._offset = offset
        self._deliver = deliver
        self._spool = spool
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway-rollouts", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the read at work."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        away = False
        while not self._stop.is_set():
            try:
                self._turn()
                away = False
            except OffsetGoneError:
                self._offset = 0
                self._stop.wait(RETRY_SECONDS)
            except LogError as error:
                if not away and not isinstance(error, LogUnavailableError):
                    logger.error("the rollouts topic can't be followed, trying on: %s", error)
                away = True
                self._stop.wait(RETRY_SECONDS)

    def _turn(self) -> None:
        self._offset = max(self._offset, self._log.bounds(self._source)[0])
        if not self._log.wait({self._source: self._offset}, WAIT_SECONDS):
            return
        records = self._log.read(self._source, self._offset)
        if not records:
            return
        found = [rollout for record in records if (rollout := decoded(record)) is not None]
        if self._spool is not None:
            self._spool.spool.known.keep(found)
        self._deliver(found)
        self._offset = records[-1].offset + 1
