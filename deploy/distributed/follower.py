"""Follows `cordon.progress.v1` in a thread, and keeps the latest word of each owner.

In front of whoever asks how far the stages have come: the gateway of a replay, and the watch for blindness. Invariants:
a stale owner's word never replaces a living one's; a word that lay in the log before we listened is told apart from one
that came since.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from ingest.events import UNREADABLE_ERRORS
from ingest.log.interface import Log, LogUnavailableError, OffsetGoneError, Record, TopicPartition
from ingest.progress import OwnerWord, progress_decoder
from ingest.topics import Topics

WAIT_SECONDS = 0.5
RETRY_SECONDS = 0.5
OWNERS_MAX = 10_000
# Whoever lives speaks every second, so what he said longest ago is not worth reading an hour of words.
LOOK_BACK_RECORDS = 5000

logger = logging.getLogger(__name__)

Listener = Callable[[OwnerWord, bool], None]


class ProgressFollower:
    """The latest word of each owner, kept up to date by a daemon thread."""

    def __init__(self, log: Log, topics: Topics) -> None:
        """Prepare; nothing is read before `start`."""
        self._log = log
        self._source = TopicPartition(topics.name("progress"), 0)
        self._words: dict[str, OwnerWord] = {}
        self._listeners: list[Listener] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress-follower", daemon=True)

    def listen(self, listener: Listener) -> None:
        """Have every word told, from the follower's thread, and whether it is fresh; only before `start`."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def words(self) -> Mapping[str, OwnerWord]:
        """The latest word of each owner."""
        with self._changed:
            return dict(self._words)

    def wait_for(self, holds: Callable[[Mapping[str, OwnerWord]], bool], timeout_seconds: float) -> bool:
        """Block until the words fulfil a condition, the time is out or the follower ends; return whether they do."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while not self._stop.is_set():
                if holds(self._words):
                    return True
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(remaining)
        return False

    def _run(self) -> None:
        position: int | None = None
        # What lies before this was said before we listened.
        fresh_from = 0
        while not self._stop.is_set():
            try:
                if position is None:
                    first, fresh_from = self._log.bounds(self._source)
                    position = max(first, fresh_from - LOOK_BACK_RECORDS)
                if self._log.wait({self._source: position}, WAIT_SECONDS):
                    position = self._turn(position, fresh_from)
            except LogUnavailableError as error:
                if not self._stop.is_set():
                    logger.warning("words of progress can't be read now, trying again: %s", error)
                self._stop.wait(RETRY_SECONDS)

    def _turn(self, position: int, fresh_from: int) -> int:
        try:
            records = self._log.read(self._source, position)
            if not records:
                # Compaction may have taken all that was there: pass the hole, but nothing appended in between.
                end = self._log.bounds(self._source)[1]
                records = self._log.read(self._source, position)
                if not records:
                    return max(position, end)
        except OffsetGoneError:
            return self._log.bounds(self._source)[0]
        with self._changed:
            for record in records:
                self._take(record, record.offset >= fresh_from)
            self._changed.notify_all()
        return records[-1].offset + 1

    def _take(self, record: Record, fresh: bool) -> None:
        if record.value is None:
            return
        try:
            word = progress_decoder.decode(record.value)
        except UNREADABLE_ERRORS as error:
            logger.warning("offset %d of %s holds no word of progress: %s", record.offset, self._source.topic, error)
            return
        known = self._words.get(word.owner)
        if known is not None and word.generation < known.generation:
            return
        if known is None and len(self._words) >= OWNERS_MAX:
            return
        self._words[word.owner] = word
        for listener in self._listeners:
            listener(word, fresh)
