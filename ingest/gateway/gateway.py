"""The gateway itself, without HTTP: what a post, a declaration or a driven clock does, in order.

Wires the stages round one event loop: parse, throttle, coalesce, discover, tick. HTTP handlers and, later, the intake
consumer are thin shells round it. The invariant: an answer says `accepted` only of what the log has durably.
"""

import asyncio
import logging
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from ingest.clock import Clock, DrivenClock
from ingest.gateway.coalesce import CoalesceLimits, Coalescer, draining
from ingest.gateway.device_limit import DeviceLimit
from ingest.gateway.discovery import RolloutBook, pushed_list
from ingest.gateway.follow import RolloutFollower
from ingest.gateway.parse import Parsed, ParseLimits, Refused, parse
from ingest.gateway.pseudonym import Pseudonyms
from ingest.gateway.records import Announcement, PushedList, RecordWriter
from ingest.gateway.recover import read_last_tick, recall
from ingest.gateway.refusal import RequestRefusedError
from ingest.gateway.spool.log import SpoolingLog, SpoolState
from ingest.gateway.tenants import Principal, Role, TokenBook, TokenBookError
from ingest.gateway.throttle import Throttle
from ingest.log.interface import Log, LogUnavailableError
from ingest.metrics import Metrics
from ingest.outcome import Outcome, Refusal
from ingest.rollouts import Rollout, RolloutDeclaration
from ingest.settings import Settings
from ingest.topics import LIVE_LANE, Topics

logger = logging.getLogger(__name__)

# Under full load devices are asked to come back this many times later than usual.
CHECK_IN_STRETCH_MAX = 10
_JITTER = 0.1
_WAIT_SECONDS_MAX = 600.0
_CATCH_UP_SECONDS = 2.0
_declaration_decoder = msgspec.json.Decoder(RolloutDeclaration)


class Progress(Protocol):
    """Tells how far the stages behind the gateway have come; a replay waits for it."""

    async def reached(self, at_ms: int) -> None:
        """Return once everything received before `at_ms` has been through to the kill switch."""
        ...

    @property
    def reached_ms(self) -> int:
        """Everything received before this time has been through."""
        ...

    def killswitch_events(self) -> int:
        """Return how many kill-switch events the lane's log holds."""
        ...


class Driven(msgspec.Struct, kw_only=True):
    """The answer to a driven clock.

    Attributes:
        at_ms: where the clock stands.
        reached_ms: everything received before this time has been through to the kill switch.
        killswitch_events: how many kill-switch events the lane holds by now.
    """

    at_ms: int
    reached_ms: int = 0
    killswitch_events: int = 0


class Answer(NamedTuple):
    """What is said to a post: how many were taken, which were not, and when to check in next."""

    accepted: int
    refused: list[Refused]
    next_check_in_seconds: int


class Gateway:
    """Takes posts to the log."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        topics: Topics,
        clock: Clock,
        metrics: Metrics,
        tokens: TokenBook,
        pseudonym_key: bytes,
        progress: Progress | None = None,
        *,
        spool: SpoolingLog | None = None,
        shared: bool = False,
    ) -> None:
        """Wire the stages; nothing is read or written before `start`.

        Args:
            settings: limits, names and times.
            log: has the topics of `topics`.
            topics: the lane's names and partition counts.
            clock: a `DrivenClock` writes ticks only when driven; any other ticks by itself.
            metrics: the process's.
            tokens: who may post.
            pseudonym_key: the installation's, from `load_key`.
            progress: what `drive` waits for; None waits for nothing.
            spool: `log` itself where it is one that spools; lets the gateway start while the log behind is away.
            shared: other gateways write to the same log: follow what they say of rollouts.
        """
        self.settings = settings
        self.metrics = metrics
        self.tokens = tokens
        self.topics = topics
        self._log = log
        self._clock = clock
        self._progress = progress
        self._spool = spool
        self._shared = shared
        self._follower: RolloutFollower | None = None
        self._accepted = metrics.counter("reports_total", outcome=Outcome.ACCEPTED)
        self._pseudonyms = Pseudonyms(pseudonym_key)
        self._limits = ParseLimits(
            reports_max=settings.reports_per_post_max,
            report_bytes_max=settings.report_bytes_max,
            future_skew_ms=settings.future_skew_ms,
            age_max_ms=settings.report_age_max_ms,
        )
        self._throttle = Throttle(clock, settings.tenant_reports_per_second_max)
        self._devices = DeviceLimit(clock, settings.device_reports_per_second_max)
        self.book = RolloutBook(clock, metrics, settings.discovered_per_tenant_max)
        limits = CoalesceLimits(
            settings.pending_reports_max,
            settings.pending_bytes_max,
            settings.linger_ms,
            # A driven clock writes ticks only when it is driven.
            0 if isinstance(clock, DrivenClock) else settings.crash_tick_ms,
        )
        writer = RecordWriter(topics, settings.gateway_name)
        self._coalescer = Coalescer(log, writer, clock, metrics, self.book, self._pseudonyms, limits)
        self._started = False
        self._draining = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load known rollouts and the last own tick, write a first tick, and tick from now on.

        With a spool the log may be away: what was noted beside the spool has to do, and the rest is read later.

        Raises:
            LogError: the log cannot be read.
        """
        name = self.settings.gateway_name
        recalled = await asyncio.to_thread(recall, self._log, self.topics, name, self._spool)
        self.book.load(recalled.rollouts)
        self._coalescer.start(recalled.last_tick_ms)
        if isinstance(self._clock, DrivenClock):
            self._clock.resume_at(recalled.last_tick_ms)
        for rollout in recalled.unsaid:
            self._announce(Announcement(rollout, notify=False))
        self._started = True
        if self._shared:
            self._follower = self._follow(recalled.next_offset)
            self._follower.start()
        if not recalled.whole:
            self._tasks.append(asyncio.create_task(self._catch_up()))
        if not isinstance(self._clock, DrivenClock):
            self._coalescer.tick()
        self._tasks.append(asyncio.create_task(self._tick_for_ever()))

    def _follow(self, offset: int) -> RolloutFollower:
        loop = asyncio.get_running_loop()

        def deliver(rollouts: Sequence[Rollout]) -> None:
            loop.call_soon_threadsafe(self._learn, rollouts)

        return RolloutFollower(self._log, self.topics, offset, deliver, self._spool)

    def _learn(self, rollouts: Sequence[Rollout]) -> None:
        """Merge what the rollouts topic says with what is known; say again what its last word on one lacks."""
        answers = {rollout.rollout: self.book.merge(rollout) for rollout in rollouts}
        if not self._draining:
            for announcement in answers.values():
                if announcement is not None:
                    self._announce(announcement)

    def _announce(self, announcement: Announcement) -> None:
        """Announce without waiting: what could not be written is written by the next flush."""
        self._coalescer.announce(announcement).add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _catch_up(self) -> None:
        """Learn the last own tick from the log once it is back: a clock set back meanwhile must not go on below it."""
        while True:
            try:
                tick_ms = await asyncio.to_thread(read_last_tick, self._log, self.topics, self.settings.gateway_name)
            except LogUnavailableError:
                await asyncio.sleep(_CATCH_UP_SECONDS)
            else:
                self._coalescer.not_before(tick_ms)
                if isinstance(self._clock, DrivenClock):
                    self._clock.resume_at(tick_ms)
                return

    async def drain(self) -> None:
        """Refuse new posts, write everything held and a last tick; afterwards nothing reaches the log any more."""
        self._draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._follower is not None:
            await asyncio.to_thread(self._follower.stop)
        await self._coalescer.close()

    def spooling(self) -> SpoolState | None:
        """Return how the spool stands while reports wait in it; None otherwise."""
        return self._spool.state() if self._spool is not None else None

    def problems(self) -> list[str]:
        """Return why the gateway is not ready; empty when it is."""
        found = []
        if not self._started:
            found.append("it has not started yet")
        if self._draining:
            found.append("it is draining")
        spooling = self.spooling()
        if spooling is not None and spooling.full:
            found.append("the log is away and the spool is full")
        elif not self._coalescer.log_ok:
            found.append("the log did not take the last append")
        return found

    def admit(self, principal: Principal) -> None:
        """Refuse a post before its body is read, if it is plain that nothing of it could be taken.

        Raises:
            RequestRefusedError: forbidden, draining, or over the rate.
        """
        if Role.REPORT not in principal.roles:
            raise RequestRefusedError(Refusal.FORBIDDEN, f"token {principal.name!r} lacks the role `report`")
        if self._draining or not self._started:
            raise draining()
        if principal.tenant and self._throttle.empty(principal.tenant):
            raise self._throttled(1)

    async def post(self, body: bytes, ndjson: bool, principal: Principal) -> Answer:
        """Take one post; return once what was accepted is durable.

        Args:
            body: the inflated body.
            ndjson: one JSON object a line; else one object or an array.
            principal: who posts; `admit` let him in.

        Raises:
            RequestRefusedError: nothing was acknowledged.
        """
        parsed = parse(body, ndjson, self._limits, self._clock.now_ms(), principal)
        if parsed.reports:
            parsed = self._throttled_part(self._devices.sift(parsed, principal.tenant), principal)
            await self._coalescer.add(parsed.reports, principal.tenant, len(body))
        self._count(parsed)
        return Answer(len(parsed.reports), parsed.refused, self.next_check_in_seconds(body))

    def _throttled_part(self, parsed: Parsed, principal: Principal) -> Parsed:
        """Return what the tenants' rates leave of a post, the rest refused.

        Raises:
            RequestRefusedError: they leave nothing.
        """
        if len(parsed.reports) == 1:
            if self._throttle.take(principal.tenant or parsed.reports[0].tenant, 1):
                return parsed
            raise self._throttled(1)
        wanted = (
            {principal.tenant: len(parsed.reports)}
            if principal.tenant
            else Counter([report.tenant for report in parsed.reports])
        )
        granted = {tenant: self._throttle.take(tenant, count) for tenant, count in wanted.items()}
        if granted == wanted:
            return parsed
        if not any(granted.values()):
            raise self._throttled(max(wanted.values()))
        kept, indices, refused = [], [], list(parsed.refused)
        for index, report in zip(parsed.indices, parsed.reports, strict=True):
            tenant = report.tenant or principal.tenant
            if granted[tenant] > 0:
                granted[tenant] -= 1
                kept.append(report)
                indices.append(index)
            else:
                refused.append(Refused(index, Outcome.THROTTLED, f"tenant {tenant!r} is over its rate: post it again"))
        return Parsed(kept, indices, sorted(refused))

    def _throttled(self, wanted: int) -> RequestRefusedError:
        return RequestRefusedError(
            Refusal.THROTTLED,
            f"over {self.settings.tenant_reports_per_second_max} reports a second: post again later",
            self._throttle.retry_after_seconds(wanted),
        )

    def _count(self, parsed: Parsed) -> None:
        if parsed.reports:
            self._accepted(len(parsed.reports))
        if parsed.refused:
            for outcome, count in Counter(item.reason for item in parsed.refused).items():
                self.metrics.count("reports_total", count, outcome=outcome)

    def next_check_in_seconds(self, body: bytes) -> int:
        """Return when a sender should check in next: later the fuller the gateway, spread by a hash of his post."""
        stretch = 1 + (CHECK_IN_STRETCH_MAX - 1) * min(1.0, self._coalescer.load)
        jitter = 1 + _JITTER * (zlib.crc32(body[:1024]) / 0x7FFF_FFFF - 1)
        return max(1, round(self.settings.check_in_seconds * stretch * jitter))

    async def declare(self, body: bytes, principal: Principal) -> tuple[Rollout, bool]:
        """Take a rollout's declaration; return the rollout and whether it is new, once it is durable.

        Raises:
            RequestRefusedError: not a declaration, forbidden, contradictory, or not written. Declarations may be
                repeated: the same one changes nothing.
        """
        if Role.ROLLOUT not in principal.roles:
            raise RequestRefusedError(Refusal.FORBIDDEN, f"token {principal.name!r} lacks the role `rollout`")
        if self._draining or not self._started:
            raise draining()
        pushed = await asyncio.to_thread(self._prepare, body, principal)
        rollout, created, announcement = self.book.declare(pushed[0], principal.name, pushed[1])
        if announcement is not None:
            await self._coalescer.announce(announcement)
        else:
            # What is known already may still be on its way to the log, or waiting to be tried again.
            await self._coalescer.flush()
        return rollout, created

    def _prepare(self, body: bytes, principal: Principal) -> tuple[RolloutDeclaration, list[PushedList]]:
        """Decode a declaration and turn its lists into pseudonyms: up to millions, so not on the event loop."""
        try:
            declaration = _declaration_decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RequestRefusedError(Refusal.BAD_REQUEST, f"not a rollout declaration: {str(error)[:200]}") from error
        if b"\\u0000" in body:
            raise RequestRefusedError(Refusal.BAD_REQUEST, "a text holds a NUL character: remove it")
        lists = []
        for push in declaration.pushed:
            if not principal.speaks_for(push.tenant):
                detail = f"this token may not push to devices of tenant {push.tenant!r}: name one it speaks for"
                raise RequestRefusedError(Refusal.FORBIDDEN, detail)
            tenant = push.tenant or principal.tenant
            names = (self._pseudonyms.of(tenant, device) for device in push.devices)
            lists.append(pushed_list(names, push.from_ms, self.topics.device_partitions))
        return declaration, lists

    async def drive(self, at_ms: int, wait_for_ms: int | None, principal: Principal) -> Driven:
        """Drive the clock of a lane that is not live, write everything held and a tick, and wait for the stages behind.

        Returns:
            Where the clock and the stages behind stand.

        Raises:
            RequestRefusedError: the live lane, no role, a clock that would go back, or stages that did not follow.
        """
        if Role.DRIVE not in principal.roles:
            raise RequestRefusedError(Refusal.FORBIDDEN, f"token {principal.name!r} lacks the role `drive`")
        if self.topics.lane == LIVE_LANE or not isinstance(self._clock, DrivenClock):
            raise RequestRefusedError(
                Refusal.FORBIDDEN, "the live lane goes by the wall clock: replay in a lane of its own"
            )
        if self._draining or not self._started:
            raise draining()
        if at_ms < max(self._clock.now_ms(), self._coalescer.last_tick_ms):
            floor = max(self._clock.now_ms(), self._coalescer.last_tick_ms)
            raise RequestRefusedError(Refusal.CONFLICT, f"the clock stands at {floor} ms and cannot go back to {at_ms}")
        self._clock.drive_to(at_ms)
        await self._coalescer.flush(tick=True)
        if wait_for_ms is not None and self._progress is not None:
            try:
                await asyncio.wait_for(self._progress.reached(wait_for_ms), _WAIT_SECONDS_MAX)
            except TimeoutError:
                detail = f"the stages behind the gateway did not reach {wait_for_ms} ms in time"
                raise RequestRefusedError(Refusal.OVERLOADED, detail, 10) from None
        if self._progress is None:
            return Driven(at_ms=self._clock.now_ms())
        events = await asyncio.to_thread(self._progress.killswitch_events)
        return Driven(at_ms=self._clock.now_ms(), reached_ms=self._progress.reached_ms, killswitch_events=events)

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.tick_ms / 1000)
            # A driven clock ticks when it is driven; its tokens are read again like any.
            if not isinstance(self._clock, DrivenClock):
                self._coalescer.tick()
            try:
                if self.tokens.reload_if_changed():
                    logger.info("tokens were read again")
            except TokenBookError as error:
                logger.error("the token file is broken, tokens stay as they were: %s", error)
