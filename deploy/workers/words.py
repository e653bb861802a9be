"""Says how far each share of this process has come, on `cordon.progress.v1`; and in its metrics.

One thread speaks for all shares: a word of each about once a second, in one append without a fence. Whoever listens
(the watch for blindness, a replay that waits) goes by the newest word of the highest generation.

The invariant: words are never in the way. A word that Kafka does not take is dropped (the next one replaces it), the
shares' own threads only ever set a flag, and one word waits for each share at most.
"""

import logging
import threading
import time
from collections.abc import Sequence

import msgspec

from deploy.workers.driver import ShareDriver
from ingest.clock import Clock
from ingest.log.interface import Entry, Log, LogError
from ingest.metrics import Metrics
from ingest.progress import OwnerWord
from ingest.topics import Topics

WORD_SECONDS = 1.0
# Driven lanes ask after each step: so many words a second are plenty for a replay, and no burden for Kafka.
EAGER_SECONDS = 0.05
STOP_SECONDS = 5.0

logger = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder()


class ProgressWriter:
    """Collects words from the shares and appends them; its methods may be called from any thread."""

    def __init__(self, log: Log, topics: Topics, worker: str, clock: Clock, metrics: Metrics) -> None:
        """Take the log; nothing is written before `start`.

        Args:
            log: where words go; may be away.
            topics: names the topic.
            worker: this process's name in its words.
            clock: the wall clock that ages are told by.
            metrics: gets `lag_records` and `newest_age_seconds` of each share.
        """
        self._log, self._topic, self._worker = log, topics.name("progress"), worker
        self._clock, self._metrics = clock, metrics
        self._changed = threading.Condition()
        self._shares: dict[str, ShareDriver] = {}
        self._asked: dict[str, ShareDriver] = {}
        self._last_words: dict[str, OwnerWord] = {}
        self._stopping = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="words", daemon=True)

    def start(self) -> None:
        """Begin to speak."""
        self._thread.start()

    def stop(self) -> None:
        """Say what is left to say and end, bounded; stop the shares before."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)

    def add(self, share: ShareDriver) -> None:
        """Ask this share for a word from now on."""
        with self._changed:
            self._shares[share.name] = share
            self._asked[share.name] = share
            self._changed.notify_all()

    def remove(self, share: ShareDriver, *, leaving: bool) -> None:
        """Ask it no more; `leaving`: it ended in order, and a last word says so."""
        word = share.word(self._worker, leaving=True) if leaving else None
        with self._changed:
            # Another driver of the same name may have taken its place.
            if self._shares.get(share.name) is share:
                del self._shares[share.name]
                self._metrics.set("lag_records", 0, owner=share.name)
            self._asked.pop(share.name, None)
            if word is not None:
                self._last_words[share.name] = word
                self._changed.notify_all()

    def nudge(self, share: ShareDriver) -> None:
        """Take a word of this share soon rather than in its turn."""
        with self._changed:
            self._asked[share.name] = share
            self._changed.notify_all()

    def _run(self) -> None:
        due = time.monotonic() + WORD_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(self._called, max(0.0, due - time.monotonic()))
                stopping = self._stopping
                asked, last_words = list(self._asked.values()), list(self._last_words.values())
                if time.monotonic() >= due:
                    asked, due = list(self._shares.values()), time.monotonic() + WORD_SECONDS
                self._asked.clear()
                self._last_words.clear()
            words = [word for share in asked if (word := share.word(self._worker)) is not None]
            self._say([*words, *last_words])
            if stopping:
                return
            time.sleep(EAGER_SECONDS)

    def _called(self) -> bool:
        return self._stopping or bool(self._asked) or bool(self._last_words)

    def _say(self, words: Sequence[OwnerWord]) -> None:
        now_ms = self._clock.now_ms()
        for word in words:
            self._metrics.set("lag_records", word.lag_records, owner=word.owner)
            if word.newest_ms:
                age = max(0, now_ms - word.newest_ms) / 1000
                self._metrics.set("newest_age_seconds", age, owner=word.owner)
        entries = [Entry(self._topic, 0, word.owner.encode(), _encoder.encode(word)) for word in words]
        if not entries:
            return
        try:
            self._log.append(entries)
        except LogError as error:
            if not self._failing:
                logger.warning("words of progress are not taken by the log, going on without: %s", error)
            self._failing = True
        except Exception:
            # Words are never worth a process; what is wrong with the log, the shares themselves will find.
            if not self._failing:
                logger.exception("words of progress can't be said, going on without")
            self._failing = True
        else:
            self._failing = False
