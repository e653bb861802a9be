"""The outbox: kill-switch events, verdicts, answers and orders in, cases out.

A stage under an `Owner`, one for each keyed partition, so that what must be told has one writer under a fence. Its
state is what it writes: a `PageCase` a rollout on `cordon.pages.v1`, which says what is still to be told over which
route. Whoever sends (`service`) writes each answer to `cordon.pagings.v1`, which comes back here.

Why a restart is exact: each case carries the offsets of its writing, and what was read after them changed no case. An
event is taken once by its number, an answer by its sequence, an order by its id. Only content that was not worth
telling yet is forgotten, and the next verdict brings it again.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from detectors.verdict import Verdict, verdict_decoder
from ingest.clock import Clock
from ingest.deadletter import DeadReason, entries_of, letter_of
from ingest.events import UNREADABLE_ERRORS, encoder
from ingest.log.interface import Entry, Log, Record, TopicPartition
from ingest.metrics import Metrics
from ingest.topics import Topics
from signals.killswitch.signing import PublicKeys, SwitchError
from signals.killswitch.verify import open_event, parse_envelope
from signals.pagers import incident as incidents
from signals.pagers.blind import OPERATOR, blind_case
from signals.pagers.case import (
    Rules,
    blind,
    ended_by,
    essence,
    is_open,
    level_of,
    settled,
    with_change,
    with_level,
    with_verdict,
)
from signals.pagers.content import page_of, page_of_ring, started_rings
from signals.pagers.orders import Desk
from signals.pagers.records import (
    PageAttempt,
    PageCase,
    PagePlace,
    attempt_decoder,
    case_decoder,
    order_decoder,
    place_decoder,
)
from signals.pagers.registry import Registry
from signals.pagers.rollouts import DeclaredRollouts
from signals.pagers.words import Answered, Level, Role

PLACE_PREFIX: Final = b"@place/"
BLIND_CASE: Final = "@blind"
PLACE_SECONDS: Final = 60
SETTLE_MS: Final = 500
STALE_MS: Final = 3_600_000
CASES_MAX: Final = 50_000
KEPT_MS: Final = 14 * 86_400_000

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """How the outbox tells.

    Attributes:
        calm_seconds: how long a fall in loudness must last before it is told.
        update_seconds: at most one update a route in this time.
        give_up_seconds: what waited longer is tried no more, and kept for redelivery by hand.
    """

    calm_seconds: int = 120
    update_seconds: int = 300
    give_up_seconds: int = 86_400


class Outbox:
    """The stage of one keyed partition; called from the Owner's thread only."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        partition: int,
        trusted: PublicKeys,
        registry: Callable[[], Registry],
        clock: Clock,
        metrics: Metrics,
        settings: OutboxSettings | None = None,
    ) -> None:
        """Prepare; `restore` must come before `apply`.

        Args:
            log: read for what was declared of rollouts.
            topics: the lane's names and partition counts.
            partition: the keyed partition this stage owns.
            trusted: the keys that kill-switch events must be signed with.
            registry: gives the registry in force.
            clock: the wall clock.
            metrics: counts what is told.
            settings: how it is told.
        """
        self._label = str(partition)
        self._topics, self._partition, self._trusted = topics, partition, trusted
        self._registry, self._clock, self._metrics = registry, clock, metrics
        self._settings = settings or OutboxSettings()
        self._declared = DeclaredRollouts(log, TopicPartition(topics.name("rollouts"), 0), clock)
        words = ("killswitch", "pageorders", "pagings", "verdicts")
        self._words = {TopicPartition(topics.name(word), partition): word for word in words}
        self._pages = TopicPartition(topics.name("pages"), partition)
        self._cases: OrderedDict[str, PageCase] = OrderedDict()
        self._desk = Desk()
        self._began_ms = 0
        self._next: dict[TopicPartition, int] = {}
        self._written: dict[TopicPartition, int] = {}
        self._active: dict[str, None] = {}
        self._dirty: dict[str, None] = {}
        self._changed: dict[str, None] = {}
        self._place_due = False
        self._place_at_ms = 0
        self._settled_at_ms = 0
        self._tidied_at_ms = 0
        self._letters: list[Entry] = []

    @property
    def inputs(self) -> Sequence[TopicPartition]:
        """Return what is read of this partition, kill-switch events first."""
        return tuple(self._words)

    @property
    def cases(self) -> Mapping[str, PageCase]:
        """Every case by rollout."""
        return self._cases

    def take_changed(self) -> list[tuple[str, PageCase | None]]:
        """Return the cases that changed since the last call; None for one that is no more."""
        changed, self._changed = list(self._changed), {}
        return [(rollout, self._cases.get(rollout)) for rollout in changed]

    def restore(self, entries: Iterable[tuple[bytes, bytes]]) -> Mapping[TopicPartition, int]:
        """Load every case and the place.

        Raises:
            msgspec.DecodeError: the state topic holds something else.
        """
        self._began_ms = self._clock.now_ms()
        self._place_due = True
        for key, value in entries:
            if key.startswith(PLACE_PREFIX):
                place = place_decoder.decode(value)
                self._began_ms, self._place_due = place.began_ms, False
                self._desk.restore(place)
                self._reach(place.offsets)
            else:
                case = case_decoder.decode(value)
                self._hold(case)
                self._changed[case.rollout] = None
                self._reach(case.offsets)
        self._written = dict(self._next)
        return dict(self._written)

    def apply(self, source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of one input, in order; what can't be read or believed is dead-lettered."""
        word = self._words[source]
        take = {
            "killswitch": self._take_event,
            "verdicts": self._take_verdict,
            "pagings": self._take_attempt,
            "pageorders": self._take_order,
        }[word]
        for record in records:
            self._next[source] = record.offset + 1
            if record.value is None:
                continue
            try:
                take(record.value)
            except (*UNREADABLE_ERRORS, SwitchError) as error:
                letter = letter_of("signals", source, record, DeadReason.UNREADABLE, str(error))
                self._letters += entries_of([letter], self._topics.name("deadletter"), self._metrics)

    def outputs(self) -> Sequence[Entry]:
        """Hand over the cases that changed in what is told, and dead letters."""
        handed, self._letters = self._letters, []
        if self._dirty:
            offsets = self._offsets()
            for rollout in self._dirty:
                case = self._cases.get(rollout)
                value = None if case is None else encoder.encode(replace(case, offsets=offsets))
                handed.append(Entry(*self._pages, rollout.encode(), value))
            self._dirty = {}
        return handed

    def snapshot(self, now_ms: int) -> Sequence[Entry]:
        """Let time take effect, and write the place about once a minute, or when orders changed it."""
        if not 0 <= now_ms - self._settled_at_ms < SETTLE_MS:
            self._settled_at_ms = now_ms
            self._settle(now_ms)
        entries = list(self.outputs())
        moved = self._written != self._next and now_ms - self._place_at_ms >= PLACE_SECONDS * 1000
        if self._place_due or moved:
            self._place_due, self._place_at_ms = False, now_ms
            place = PagePlace(offsets=self._offsets(), began_ms=self._began_ms, mutes=self._desk.mutes,
                          orders=self._desk.handled)  # fmt: skip
            entries.append(Entry(*self._pages, PLACE_PREFIX + str(self._partition).encode(), encoder.encode(place)))
        return entries

    def oldest(self) -> Mapping[TopicPartition, int]:
        """Return the offsets of the last record handed over."""
        return dict(self._written)

    # Inputs.

    def _take_event(self, value: bytes) -> None:
        switch = open_event(parse_envelope(value), self._trusted).switch
        case = self._case(switch.rollout)
        if switch.number <= case.number:
            return
        now_ms = self._clock.now_ms()
        case = replace(case, vendor=switch.vendor, product=switch.product, version=switch.version,
                       number=switch.number)  # fmt: skip
        level = level_of(switch)
        if switch.lane not in self._registry().lanes or (switch.dry_run and level is case.level):
            # A dry run binds nobody: what it says is for nobody's pager.
            self._put(case)
            return
        case = replace(case, level=level, blind=blind(switch, level))
        at_ms = switch.watermark_ms or switch.decided_ms
        page = page_of(switch, level, self._declared.find(switch.rollout), at_ms)
        if switch.decided_ms < self._began_ms - STALE_MS:
            # Decided long before anybody was to be paged from here: it is followed, so that its end is no news either.
            self._put(replace(case, closed=case.number) if level is not Level.NONE else case)
            return
        at_once = switch.cause != "detector"
        self._put(
            with_level(
                case, page, switch.evidence, self._rules(), now_ms, at_once=at_once, resolved_by=ended_by(switch)
            )
        )
        self._count_blind(now_ms)

    def _take_verdict(self, value: bytes) -> None:
        verdict = verdict_decoder.decode(value)
        case = self._cases.get(verdict.rollout)
        if verdict.dry_run or self._topics.lane not in self._registry().lanes:
            return
        case = self._told_rings(case, verdict)
        if case is None or case.closed == case.number or case.level is Level.NONE or case.blind:
            return
        page = next((one.page for one in case.incidents if one.role is not Role.CO_VICTIM and one.page), None)
        if page is None:
            return
        declared = self._declared.find(case.rollout)
        self._put(with_verdict(case, page, verdict, declared, self._rules(), self._clock.now_ms()))

    def _told_rings(self, case: PageCase | None, verdict: Verdict) -> PageCase | None:
        """Tell routes that ask for it which rings have started; returns the case as it is then."""
        declared = self._declared.find(verdict.rollout)
        started = started_rings(declared, verdict.at_ms)
        fresh = [ring for ring in started if case is None or ring not in case.rings]
        if not fresh:
            return case
        known = case or PageCase(
            rollout=verdict.rollout, vendor=verdict.vendor, product=verdict.product, version=verdict.version
        )
        for ring in fresh:
            page = page_of_ring(known, ring, verdict.at_ms, self._topics.lane)
            known = with_change(known, page, self._registry(), self._clock.now_ms())
        known = replace(known, rings=[*known.rings, *fresh])
        if case is None and not known.incidents:
            return None
        self._put(known)
        return known

    def _take_attempt(self, value: bytes) -> None:
        attempt = attempt_decoder.decode(value)
        case = self._cases.get(attempt.rollout)
        if case is None or attempt.answered is Answered.RETRY:
            return
        before = case
        case = replace(case, incidents=[
            incidents.answered(one, attempt) if one.owner == attempt.owner else one for one in case.incidents
        ])  # fmt: skip
        if attempt.answered is Answered.REFUSED and case.incidents != before.incidents:
            self._undelivered(attempt)
        self._put(settled(case, self._rules(), self._clock.now_ms(), self._give_up_ms))

    def _undelivered(self, attempt: PageAttempt) -> None:
        _LOGGER.error("route %s refused %s of %s: %d %s; it is kept, see `cordon pagers list`", attempt.route,
                      attempt.step.value, attempt.key, attempt.status, attempt.answer)  # fmt: skip
        source = TopicPartition(self._topics.name("pagings"), self._partition)
        record = Record(self._next[source] - 1, None, encoder.encode(attempt), attempt.at_ms)
        letter = letter_of("signals", source, record, DeadReason.REFUSED, f"{attempt.route}: {attempt.answer}")
        self._letters += entries_of([letter], self._topics.name("deadletter"), self._metrics)

    def _take_order(self, value: bytes) -> None:
        order = order_decoder.decode(value)
        now_ms = self._clock.now_ms()
        case = self._cases.get(order.rollout) if order.rollout else None
        after = self._desk.take(order, case, self._rules(), now_ms)
        self._place_due = True
        if after is not None and after is not case:
            self._put(after)

    # Time.

    def _settle(self, now_ms: int) -> None:
        if self._desk.expire(now_ms):
            self._place_due = True
        rules = self._rules()
        for name in list(self._active):
            case = self._cases[name]
            after = settled(case, rules, now_ms, self._give_up_ms)
            if after is not case:
                self._put(after)
        if now_ms - self._tidied_at_ms >= PLACE_SECONDS * 1000:
            self._tidied_at_ms = now_ms
            self._tidy(now_ms)
        active = [one for name in self._active for one in self._cases[name].incidents]
        self._metrics.set(
            "pager_incidents_open", sum(one.level is not Level.NONE for one in active), partition=self._label
        )

    def _tidy(self, now_ms: int) -> None:
        """Forget what has long been over, and count what was given up."""
        over = [name for name in self._cases if name not in self._active]
        most = max(0, len(self._cases) - CASES_MAX)
        for place, name in enumerate(over):
            if place < most or now_ms - self._cases[name].touched_ms > KEPT_MS:
                self._drop(name)
        failed = sum(len(d.failed) for case in self._cases.values() for one in case.incidents for d in one.deliveries)
        self._metrics.set("pager_undelivered", failed, partition=self._label)

    def _count_blind(self, now_ms: int) -> None:
        """Fold every rollout that is held for want of sight into one incident for whoever runs Cordon."""
        name = f"{BLIND_CASE}/{self._partition}"
        held = sum(case.blind for case in self._cases.values())
        case = self._cases.get(name)
        if case is not None or held:
            known = case or PageCase(rollout=name, vendor=OPERATOR, product=OPERATOR)
            self._put(blind_case(known, held, self._topics.lane, self._rules(), now_ms))

    # State.

    @property
    def _give_up_ms(self) -> int:
        return self._settings.give_up_seconds * 1000

    def _rules(self) -> Rules:
        return Rules(
            registry=self._registry(),
            mutes=self._desk.mutes,
            calm_ms=self._settings.calm_seconds * 1000,
            update_ms=self._settings.update_seconds * 1000,
        )

    def _case(self, rollout: str) -> PageCase:
        return self._cases.get(rollout) or PageCase(rollout=rollout)

    def _put(self, case: PageCase) -> None:
        before = self._cases.get(case.rollout)
        if before is not None and essence(before) == essence(case):
            # Newer content that is not worth telling yet: kept here, not in the log.
            self._hold(case)
            return
        self._hold(replace(case, touched_ms=self._clock.now_ms()))
        self._dirty[case.rollout] = None
        self._changed[case.rollout] = None

    def _hold(self, case: PageCase) -> None:
        self._cases[case.rollout] = case
        if is_open(case):
            self._active[case.rollout] = None
        else:
            self._active.pop(case.rollout, None)

    def _drop(self, rollout: str) -> None:
        del self._cases[rollout]
        self._active.pop(rollout, None)
        self._dirty[rollout] = None
        self._changed[rollout] = None

    def _offsets(self) -> dict[str, int]:
        self._written = dict(self._next)
        return {f"{self._words[source]}/{source.partition}": offset for source, offset in self._next.items()}

    def _reach(self, offsets: Mapping[str, int]) -> None:
        for source, word in self._words.items():
            offset = offsets.get(f"{word}/{source.partition}")
            if offset is not None:
                self._next[source] = max(offset, self._next.get(source, 0))
