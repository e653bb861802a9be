"""The gateway's way into a log that may be away: straight through while it answers in time, else through the spool.

Every append goes by one producer thread, so whoever appends waits for the log behind at most `after_seconds`, and then
for the spool's fsync. From the first append that failed or was slow, every flush goes to the spool until a drain, in
the same producer thread, has emptied it: nothing overtakes what was spooled before it.

Invariants: what was acknowledged is in the log behind or on this disk; a partition's entries reach the log behind in
the order they were appended. Entries may reach it twice: an append that failed or was late may have happened, and so
may a drain whose end was not written down before a kill. Nothing behind the log minds: reports are told apart by their
sequence numbers, a tick counts by the newest one seen, rollouts and notices are absolute.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ingest.gateway.spool.calm import Calm
from ingest.gateway.spool.store import Spool
from ingest.log.interface import (
    Entry,
    Fence,
    Log,
    LogFullError,
    LogUnavailableError,
    Record,
    TopicPartition,
)
from ingest.metrics import Metrics

logger = logging.getLogger(__name__)

RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0)
TIDY_SECONDS = 5.0
_IDLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SpoolState:
    """How the spool stands, for whoever asks whether the gateway is ready.

    Attributes:
        waiting_bytes: bytes that the log behind has not taken, as stored on disk.
        bytes_max: how many there may be.
        oldest_seconds: age of the oldest flush among them.
        full: the last flush found no room.
    """

    waiting_bytes: int
    bytes_max: int
    oldest_seconds: float
    full: bool


class _Direct:
    """An append on its way to the log behind, whose caller waits for a while."""

    __slots__ = ("done", "entries", "error", "offsets")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.done = threading.Event()
        self.offsets: list[int] = []
        self.error: Exception | None = None


class SpoolingLog:
    """A log that keeps taking unfenced appends while the log behind is away; everything else is passed on."""

    def __init__(
        self,
        behind: Log,
        spool: Spool,
        metrics: Metrics,
        *,
        after_seconds: float,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the producer; what an earlier process left in the spool is drained at once.

        Args:
            behind: the log; it may be away.
            spool: where flushes wait meanwhile; this log owns and closes it.
            metrics: gets the spool's figures.
            after_seconds: how long an append may take before it goes to the spool instead.
            retry_seconds: pauses after the first, second, ... failure of the drain; the last one stays.
            monotonic: a clock that never goes back, in seconds.
        """
        self._retry_seconds = retry_seconds
        self._behind = behind
        self.spool = spool
        self._metrics = metrics
        self._after_seconds = after_seconds
        self._monotonic = monotonic
        self._appending = threading.Lock()
        self._changed = threading.Condition()
        self._direct: _Direct | None = None
        self._spooling = not spool.empty
        self._calm = Calm(after_seconds, monotonic)
        if self._spooling:
            self._calm.disturbed()
            logger.warning("the spool holds %d bytes from before: draining them first", spool.stored_bytes)
        self._full = False
        self._closing = threading.Event()
        self._tidied_at = monotonic()
        self._thread = threading.Thread(target=self._run, name="gateway-producer", daemon=True)
        self._thread.start()

    def append(self, entries: Sequence[Entry], fence: Fence | None = None) -> list[int]:
        """Append all entries or none, durably: to the log behind, or to the spool on the way there.

        Returns:
            The offsets; -1 for each entry that went to the spool, whose place is not known yet.

        Raises:
            LogFullError: the log behind is away and the spool takes nothing more; nothing was acknowledged.
            LogError: as `Log.append`.
        """
        if fence is not None:
            return self._behind.append(entries, fence)
        with self._appending:
            if self._closing.is_set():
                raise LogUnavailableError("the log is closed: open it again")
            # Only here does anything enter the spool, and only this lock lets it: what is empty now stays empty.
            if self._spooling and self.spool.empty and self._calm:
                self._spooling = False
                logger.info("the spool is empty and the log keeps up: appending straight to it")
            tried = not self._spooling
            if tried and (offsets := self._straight(entries)) is not None:
                return offsets
            try:
                self._put(entries)
            except LogFullError:
                # Its disk refuses though nothing waits on it: then nothing can be overtaken either.
                if tried or not self.spool.empty or (offsets := self._straight(entries)) is None:
                    raise
                return offsets
            return [-1] * len(entries)

    def _straight(self, entries: Sequence[Entry]) -> list[int] | None:
        """Return the offsets; None where the log behind failed or is late, and the spool's turn has begun."""
        direct = _Direct(entries)
        with self._changed:
            self._direct = direct
            self._changed.notify_all()
        in_time = direct.done.wait(self._after_seconds)
        with self._changed:
            # Not even begun: then it need not happen twice.
            self._direct = None
        if in_time and direct.error is None:
            self.spool.known.note(entries)
            return direct.offsets
        if in_time and direct.error is not None and not isinstance(direct.error, LogUnavailableError):
            raise direct.error
        self._spooling = True
        self._calm.disturbed()
        logger.error("flushes go to the spool from now on: %s", direct.error or "the log is slow")
        return None

    def _put(self, entries: Sequence[Entry]) -> None:
        try:
            self.spool.put(entries)
        except LogFullError:
            self._full = True
            raise
        self._full = False
        self._metrics.count("spooled_total")
        self._metrics.set("spool_bytes", self.spool.stored_bytes)
        with self._changed:
            self._changed.notify_all()

    # The producer's thread.

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            direct = self._next()
            try:
                if direct is not None:
                    self._append_direct(direct)
                elif not self.spool.empty:
                    self._drain(little=failures > 0)
                elif self.spool.untidy:
                    self._sweep()
                self._tidy()
                failures = 0
            except Exception as error:
                # Whatever it is, what is spooled stays there, and the next try may find it gone.
                if failures == 0:
                    logger.error("the spool can't be drained now, trying on: %s", error)
                failures = min(failures + 1, len(self._retry_seconds))
                self._calm.disturbed()
                self._report()
                self._closing.wait(self._retry_seconds[failures - 1])

    def _next(self) -> _Direct | None:
        """Wait for work; return an append if it is one."""
        with self._changed:
            if self._direct is None and self.spool.empty:
                self._changed.wait(_IDLE_SECONDS)
            direct, self._direct = self._direct, None
        return direct

    def _append_direct(self, direct: _Direct) -> None:
        try:
            direct.offsets = self._behind.append(direct.entries)
        except Exception as error:
            direct.error = error
        direct.done.set()

    def _drain(self, *, little: bool) -> None:
        taken = self.spool.take(little=little)
        if taken is None:
            return
        started = self._monotonic()
        self._behind.append(taken.entries)
        self._calm.took(self._monotonic() - started)
        self._metrics.count("spool_drained_total", taken.flushes)
        self.spool.done(taken)
        self._report()

    def _sweep(self) -> None:
        """Give the disk back that could not be given back as the last flush was drained."""
        try:
            self.spool.tidy()
        except LogUnavailableError:
            # Whoever appends waits for this thread: never wait for him.
            if not self._appending.acquire(blocking=False):
                raise
            try:
                self.spool.start_over()
            finally:
                self._appending.release()
        self._report()

    def _tidy(self) -> None:
        now = self._monotonic()
        if now - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = now
            self.spool.tidy()

    def _report(self) -> None:
        if self.spool.empty:
            self._full = False
        self._metrics.set("spool_bytes", self.spool.stored_bytes)
        self._metrics.set("spool_oldest_seconds", self.spool.oldest_seconds())

    # What others ask.

    def state(self) -> SpoolState | None:
        """Return how the spool stands; None while flushes go straight to the log behind."""
        if not self._spooling:
            return None
        spool = self.spool
        return SpoolState(spool.stored_bytes, spool.bytes_max, spool.oldest_seconds(), self._full)

    def close(self) -> None:
        """End the producer after the append at work, and close both logs; what waits is drained by the next process."""
        with self._appending:
            if self._closing.is_set():
                return
            self._closing.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()
        if not self.spool.empty:
            logger.warning("%d bytes stay in the spool for the next start", self.spool.stored_bytes)
        self.spool.close()
        self._behind.close()

    # Passed on.

    def read(
        self, source: TopicPartition, offset: int, max_records: int = 500, max_bytes: int = 8 << 20
    ) -> list[Record]:
        """Return records of the log behind; see `Log.read`."""
        return self._behind.read(source, offset, max_records, max_bytes)

    def bounds(self, source: TopicPartition) -> tuple[int, int]:
        """Return the bounds in the log behind; see `Log.bounds`."""
        return self._behind.bounds(source)

    def claim(self, name: str) -> Fence:
        """Claim in the log behind; see `Log.claim`."""
        return self._behind.claim(name)

    def check(self, fence: Fence) -> None:
        """Check in the log behind; see `Log.check`."""
        self._behind.check(fence)

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], fence: Fence | None = None) -> None:
        """Commit in the log behind; see `Log.commit`."""
        self._behind.commit(group, offsets, fence)

    def committed(self, group: str, source: TopicPartition) -> int | None:
        """Return what is committed in the log behind; see `Log.committed`."""
        return self._behind.committed(group, source)

    def wait(self, positions: Mapping[TopicPartition, int], timeout_seconds: float) -> bool:
        """Wait for the log behind; see `Log.wait`."""
        return self._behind.wait(positions, timeout_seconds)
