"""Many small posts become few log records.

Posts add their reports to buffers by partition; one flush at a time takes them to the log in one atomic append, in a
writer thread, so that the event loop never waits for a disk. What piles up meanwhile shares the next flush. Crashes go
as soon as the writer is free, activity lingers.

The invariants: a post's future resolves only after the append that holds its last report; a failed append acknowledges
nothing; a tick of time T goes in the flush that takes everything buffered until then, so whatever was received before T
lies before it in each partition; ticks never go back.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ingest.activity import ActivityBuffer
from ingest.clock import Clock
from ingest.events import Report
from ingest.gateway.discovery import RolloutBook
from ingest.gateway.pseudonym import Pseudonyms
from ingest.gateway.records import REPORTS_PER_RECORD_MAX, Announcement, Flush, RecordWriter
from ingest.gateway.refusal import RequestRefusedError
from ingest.gateway.route import route
from ingest.log.interface import Log, LogFullError
from ingest.metrics import Metrics
from ingest.outcome import Refusal

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2
# A full spool means that the log was away for long: it will not be back in a moment.
SPOOL_FULL_RETRY_SECONDS = 30
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class CoalesceLimits:
    """What the coalescer may hold, in reports and bytes of posts, and how long activity waits for company."""

    pending_reports_max: int = 200_000
    pending_bytes_max: int = 256 << 20
    linger_ms: int = 100
    crash_tick_ms: int = 0


class _Waiter:
    """A caller who waits for one or two appends."""

    __slots__ = ("future", "parts")

    def __init__(self, future: asyncio.Future[None], parts: int) -> None:
        self.future = future
        self.parts = parts


@dataclass(slots=True)
class _Side(Generic[B]):
    """Buffers of one device topic, by partition, and who waits for them."""

    make: Callable[[], list[B]]
    buffers: list[B] = field(init=False)
    count: int = 0
    size_bytes: int = 0
    waiters: list[_Waiter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buffers = self.make()

    def take(self) -> "_Side[B]":
        """Return what is held and start afresh."""
        taken = _Side(self.make)
        taken.buffers, self.buffers = self.buffers, taken.buffers
        taken.count, self.count = self.count, 0
        taken.size_bytes, self.size_bytes = self.size_bytes, 0
        taken.waiters, self.waiters = self.waiters, taken.waiters
        return taken


@dataclass(slots=True)
class _Job:
    """One append on its way."""

    flush: Flush
    reports: int
    size_bytes: int
    waiters: list[_Waiter]


class Coalescer:
    """Buffers between posts and the log. Belongs to one event loop; only its writer runs elsewhere."""

    def __init__(
        self,
        log: Log,
        writer: RecordWriter,
        clock: Clock,
        metrics: Metrics,
        book: RolloutBook,
        pseudonyms: Pseudonyms,
        limits: CoalesceLimits,
    ) -> None:
        self._log = log
        self._writer = writer
        self._clock = clock
        self._metrics = metrics
        self._book = book
        self._pseudonyms = pseudonyms
        self._limits = limits
        partitions = writer.topics.device_partitions
        self._activity = _Side(lambda: [ActivityBuffer(REPORTS_PER_RECORD_MAX) for _ in range(partitions)])
        self._crashes: _Side[list[Report]] = _Side(lambda: [[] for _ in range(partitions)])
        self._full = REPORTS_PER_RECORD_MAX * partitions
        self._announcements: list[Announcement] = []
        self._flush_waiters: list[_Waiter] = []
        self._tick_due = False
        self._ripe = False
        self._linger: asyncio.TimerHandle | None = None
        self._early_tick: asyncio.TimerHandle | None = None
        self._job: _Job | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._closed = False
        self._behind = False
        self.last_tick_ms = 0
        self.pending_reports = 0
        self.pending_bytes = 0
        self.log_ok = True

    def start(self, last_tick_ms: int) -> None:
        """Start the writer on the running event loop; never tick at or below `last_tick_ms`."""
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gateway-writer")
        self.last_tick_ms = last_tick_ms

    @property
    def load(self) -> float:
        """Return how full the coalescer is, 0 to 1."""
        return max(
            self.pending_reports / self._limits.pending_reports_max, self.pending_bytes / self._limits.pending_bytes_max
        )

    def add(self, reports: Sequence[Report], tenant: str, size_bytes: int) -> asyncio.Future[None]:
        """Take the reports of one post; the future resolves once all of them are durable.

        Args:
            reports: checked reports, changed in place.
            tenant: the tenant of those that name none.
            size_bytes: the bytes of the post, for the bound on memory.

        Raises:
            RequestRefusedError: the coalescer is full, or closed; nothing was taken. The future raises it when the log
                did not take the reports.
        """
        if self._closed or self._loop is None:
            raise draining()
        if (
            self.pending_reports + len(reports) > self._limits.pending_reports_max
            or self.pending_bytes + size_bytes > self._limits.pending_bytes_max
        ):
            raise RequestRefusedError(
                Refusal.OVERLOADED, "the gateway holds as much as it may: post again later", RETRY_AFTER_SECONDS
            )
        activity, crashes = self._activity, self._crashes
        routed = route(reports, tenant, self._pseudonyms, self._book.seen, activity.buffers, crashes.buffers)
        if routed.newcomers:
            self._announcements.extend(self._book.reveal(routed.newcomers))
        waiter = _Waiter(self._loop.create_future(), bool(routed.activity) + bool(routed.crashes))
        self.pending_reports += len(reports)
        self.pending_bytes += size_bytes
        if routed.activity:
            activity.size_bytes += size_bytes
        else:
            crashes.size_bytes += size_bytes
        if routed.activity:
            activity.count += routed.activity
            activity.waiters.append(waiter)
        if routed.crashes:
            crashes.count += routed.crashes
            crashes.waiters.append(waiter)
        if not waiter.parts:
            waiter.future.set_result(None)
        self._kick()
        return waiter.future

    def announce(self, announcement: Announcement) -> asyncio.Future[None]:
        """Write a rollout; the future resolves once it is durable. A failed write is repeated with the next flush."""
        self._announcements.append(announcement)
        return self.flush()

    def flush(self, tick: bool = False) -> asyncio.Future[None]:
        """Take everything held to the log now, with a tick if asked; the future resolves once it is durable."""
        if self._loop is None:
            raise draining()
        waiter = _Waiter(self._loop.create_future(), 1)
        self._flush_waiters.append(waiter)
        self._tick_due = self._tick_due or tick
        self._kick()
        return waiter.future

    def not_before(self, tick_ms: int) -> None:
        """Never tick at or below `tick_ms`: it was found in the log after the start."""
        self.last_tick_ms = max(self.last_tick_ms, tick_ms)

    def tick(self) -> None:
        """Write a tick with the next flush, which is now if the writer is free."""
        self._tick_due = True
        self._kick()

    async def close(self) -> None:
        """Take nothing more, flush what is held with a last tick, and stop the writer."""
        if self._closed or self._loop is None or self._thread is None:
            self._closed = True
            return
        self._closed = True
        try:
            await self.flush(tick=True)
        except RequestRefusedError as refusal:
            logger.error("the last flush failed, its posts were not acknowledged: %s", refusal.detail)
        for timer in (self._linger, self._early_tick):
            if timer is not None:
                timer.cancel()
        self._thread.shutdown(wait=True)

    def _kick(self) -> None:
        """Start the next flush if the writer is free and something is due."""
        if self._job is not None:
            return
        if self._crashes.count and self._limits.crash_tick_ms:
            self._tick_early()
        everything = self._tick_due or bool(self._flush_waiters)
        activity_due = everything or (self._activity.count > 0 and self._activity_ripe())
        if not (activity_due or self._crashes.count):
            return
        now_ms = self._clock.now_ms()
        # The last tick says farewell, so it is written whatever the clock says.
        tick_at_ms = now_ms if self._tick_due and (now_ms > self.last_tick_ms or self._closed) else None
        if self._tick_due:
            self._say_if_behind(now_ms)
        # A clock that went back must not make what comes now look as if it had been kept back.
        now_ms = max(now_ms, self.last_tick_ms)
        if tick_at_ms is not None:
            tick_at_ms = now_ms
        self._tick_due = False
        flush = Flush(now_ms, announcements=list(self._announcements), tick_at_ms=tick_at_ms, leaving=self._closed)
        job = _Job(flush, 0, 0, self._flush_waiters)
        self._flush_waiters = []
        if activity_due:
            flush.activity = self._join(job, self._activity.take())
            self._ripe = False
        flush.crashes = self._join(job, self._crashes.take())
        self._submit(job)

    def _tick_early(self) -> None:
        """See to a tick soon: a crash is evidence only once a tick lies behind it."""
        gap_ms = self._clock.now_ms() - self.last_tick_ms
        if gap_ms >= self._limits.crash_tick_ms:
            self._tick_due = True
        elif self._early_tick is None and self._loop is not None:
            delay_ms = self._limits.crash_tick_ms - max(gap_ms, 0)
            self._early_tick = self._loop.call_later(delay_ms / 1000, self._early_tick_over)

    def _early_tick_over(self) -> None:
        self._early_tick = None
        if not self._closed:
            self.tick()

    def _say_if_behind(self, now_ms: int) -> None:
        """Log once when the clock goes behind the last tick, and once when it has caught up."""
        behind = now_ms < self.last_tick_ms
        if behind != self._behind:
            self._behind = behind
            if behind:
                logger.error("the clock went back to %d ms: no tick is written before %d", now_ms, self.last_tick_ms)
            else:
                logger.info("the clock has caught up with the last tick")

    @staticmethod
    def _join(job: _Job, side: _Side[B]) -> Sequence[B]:
        job.reports += side.count
        job.size_bytes += side.size_bytes
        job.waiters = job.waiters + side.waiters if job.waiters else side.waiters
        return side.buffers

    def _activity_ripe(self) -> bool:
        """Tell whether activity waited long enough or fills its records; else see to it that it will have."""
        if self._ripe or self._limits.linger_ms == 0 or self._activity.count >= self._full:
            return True
        if self._linger is None and self._loop is not None:
            self._linger = self._loop.call_later(self._limits.linger_ms / 1000, self._linger_over)
        return False

    def _linger_over(self) -> None:
        self._linger = None
        self._ripe = self._activity.count > 0
        self._kick()

    def _submit(self, job: _Job) -> None:
        assert self._thread is not None
        self._job = job
        self._metrics.set("pending_reports", self.pending_reports)
        self._thread.submit(self._append, job).add_done_callback(self._appended)

    def _append(self, job: _Job) -> None:
        """Encode and append, in the writer's thread."""
        entries = self._writer.entries(job.flush)
        if not entries:
            return
        started = time.perf_counter()
        self._log.append(entries)
        self._metrics.observe("log_append_seconds", time.perf_counter() - started)

    def _appended(self, done: Future[None]) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, done.exception())

    def _settle(self, error: BaseException | None) -> None:
        job, self._job = self._job, None
        assert job is not None
        self.pending_reports -= job.reports
        self.pending_bytes -= job.size_bytes
        self.log_ok = error is None
        if error is None:
            del self._announcements[: len(job.flush.announcements)]
            if job.flush.tick_at_ms is not None:
                self.not_before(job.flush.tick_at_ms)
                self._metrics.count("ticks_total", 2 * self._writer.topics.device_partitions)
            for waiter in job.waiters:
                waiter.parts -= 1
                if waiter.parts == 0 and not waiter.future.done():
                    waiter.future.set_result(None)
        else:
            logger.error("the log did not take %d reports, none is acknowledged: %s", job.reports, error)
            for waiter in job.waiters:
                if not waiter.future.done():
                    waiter.future.set_exception(_not_taken(error))
        self._kick()


def draining() -> RequestRefusedError:
    """Return the refusal of a gateway that takes nothing more."""
    return RequestRefusedError(
        Refusal.DRAINING, "this gateway is not taking reports: try another, or again later", RETRY_AFTER_SECONDS
    )


def _not_taken(error: BaseException) -> RequestRefusedError:
    if isinstance(error, LogFullError):
        return RequestRefusedError(
            Refusal.SPOOL_FULL,
            "the log is away and the spool is full, none is acknowledged: post to another gateway, or again later",
            SPOOL_FULL_RETRY_SECONDS,
        )
    return RequestRefusedError(
        Refusal.LOG_UNAVAILABLE,
        "the log did not take the reports, none is acknowledged: post again",
        RETRY_AFTER_SECONDS,
    )
