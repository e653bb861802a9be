"""Leases: for which rollouts `proceed` is said now, until when, and why not for the others.

`judge` is a pure function; `LeaseBook` remembers of each rollout what it needs and hands over the leases that are due.
The signals stage asks it in every step, signs what it gives, and appends it under the same fence as its events.
Invariants: no lease is granted while Cordon does not see, while a stop of the whole binds, on an old or a blind
verdict, or by a process that has not read what was said and asked before; and a lease is about the last event.

Renewals are spread: at most `LEASES_PER_SECOND`, those most overdue first, so that ten thousand rollouts cost the stage
a few milliseconds at a time. What can't be renewed in time runs out: overload ends in a hold.
"""

import enum
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from detectors.drill import is_drill
from detectors.verdict import DecisionWord, Reason, Verdict, VerdictWord
from ingest.clock import Clock
from ingest.metrics import Metrics
from ingest.sight import SightSource
from signals.events import Lease, ScopedStop, Switch
from signals.killswitch.effective import standing_stops

LEASES_PER_SECOND = 1000
BATCH_MAX = 250
BATCH_MS = 50
# How long after its last verdict a rollout is forgotten, and its record in the log taken back.
FORGET_SECONDS = 3600.0


class Withheld(enum.StrEnum):
    """Why a rollout gets no lease now; a closed set."""

    STOPPED = "stopped"
    BLIND = "blind"
    NO_VERDICT = "no_verdict"
    VERDICT_OLD = "verdict_old"
    VERDICT_BLIND = "verdict_blind"
    HEARD_TOO_LITTLE = "heard_too_little"
    READING = "reading"


WITHHELD_DOCS: dict[Withheld, str] = {
    Withheld.STOPPED: "The whole rollout is held or killed, and that binds: there is nothing to proceed with.",
    Withheld.BLIND: "Cordon does not see: a share of its work is silent, behind or dead. `/v1/sight` names it.",
    Withheld.NO_VERDICT: "No verdict of this rollout has been read yet.",
    Withheld.VERDICT_OLD: "The latest verdict is older than `lease_verdict_seconds`: detection lags, or has closed it.",
    Withheld.VERDICT_BLIND: (
        "The latest verdict is an error, or says that telemetry, activity or a bound of the exposed share is missing."
    ),
    Withheld.HEARD_TOO_LITTLE: (
        "Fewer of the exposed devices than `lease_heard_share_least` were heard from lately: harm could go unseen. The "
        "same when nobody is known to have taken it a quarter of an hour after a ring was to have got all of its push; "
        "one that begins later than declared has to be declared again."
    ),
    Withheld.READING: "The process that signs has not read all that was said and asked before; it has just started.",
}
_BLIND_REASONS = frozenset(
    {Reason.NO_TELEMETRY, Reason.ACTIVITY_LATE, Reason.DETECTOR_FAILED, Reason.NO_EXPOSURE_BOUND}
)


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """On what terms leases are granted.

    Attributes:
        seconds: how long a lease lasts; it is renewed at a third of it.
        verdict_seconds: how old the latest verdict may be, in event time against the wall clock.
        heard_share_least: part of the exposed devices that must have been heard from lately.
    """

    seconds: float = 60.0
    verdict_seconds: float = 150.0
    heard_share_least: float = 0.4

    @property
    def lasts_ms(self) -> int:
        """How long a lease lasts, in milliseconds."""
        return int(self.seconds * 1000)

    @property
    def renew_ms(self) -> int:
        """How long after it was granted a lease is renewed, in milliseconds."""
        return int(self.seconds * 1000 / 3)


@dataclass(frozen=True, slots=True)
class Told:
    """What a lease needs of a verdict."""

    at_ms: int
    word: VerdictWord
    reason: Reason
    heard_share: float | None
    drill: bool = False

    @classmethod
    def by(cls, verdict: Verdict) -> "Told":
        """Return it of a verdict."""
        drill = is_drill(verdict.vendor, verdict.product)
        return cls(verdict.at_ms, verdict.verdict, verdict.reason, verdict.heard_share, drill)


def whole_stopped(switch: Switch | None) -> bool:
    """Tell whether a stop of the whole rollout binds after its last event."""
    return any(stop.scope.whole for stop in standing_stops(switch))


def judge(*, stopped: bool, told: Told | None, seeing: bool, now_ms: int, terms: LeaseTerms) -> Withheld | None:
    """Return why a rollout gets no lease at `now_ms`, or None where it gets one.

    A verdict that is `unknown` or watching for want of evidence is no reason: the gate decides on the next ring, the
    lease only says that the push within this one is watched.

    Args:
        stopped: a stop of the whole binds.
        told: its latest verdict.
        seeing: whether Cordon sees now.
        now_ms: the wall clock.
        terms: what is asked of a verdict.
    """
    if stopped:
        return Withheld.STOPPED
    if not seeing:
        return Withheld.BLIND
    if told is None:
        return Withheld.NO_VERDICT
    if told.word is VerdictWord.ERROR or told.reason in _BLIND_REASONS:
        return Withheld.VERDICT_BLIND
    if now_ms - told.at_ms > terms.verdict_seconds * 1000:
        return Withheld.VERDICT_OLD
    if told.heard_share is not None and told.heard_share < terms.heard_share_least:
        return Withheld.HEARD_TOO_LITTLE
    return None


@dataclass(slots=True)
class _Kept:
    """What is kept of one rollout; `due_ms` is when it is looked at next."""

    told: Told | None = None
    stopped: bool = False
    number: int = 0
    digest: str = ""
    stops: tuple[ScopedStop, ...] = ()
    due_ms: int = -1
    withheld: Withheld | None = Withheld.NO_VERDICT
    counted: Withheld | None = None


class LeaseBook:
    """The leases of one keyed partition; used by the thread of its Owner."""

    def __init__(self, lane: str, terms: LeaseTerms, sight: SightSource, clock: Clock, metrics: Metrics) -> None:
        """Begin with nothing granted.

        Args:
            lane: what leases say they are of.
            terms: on what terms they are granted.
            sight: asked whether Cordon sees, each time leases are due.
            clock: the wall clock.
            metrics: gets how many were issued, and how many rollouts have none by reason.
        """
        self._lane, self._terms = lane, terms
        self._sight, self._clock, self._metrics = sight, clock, metrics
        self._kept: dict[str, _Kept] = {}
        self._queue: list[tuple[int, str]] = []
        self._urgent: dict[str, None] = {}
        self._counts: dict[Withheld, int] = dict.fromkeys(Withheld, 0)
        self._batch_ms = 0
        self._seeing = False
        self._forgotten: list[str] = []

    @property
    def terms(self) -> LeaseTerms:
        """On what terms leases are granted."""
        return self._terms

    def told(self, verdict: Verdict) -> None:
        """Take a verdict; one that is older than the last, told again out of turn, says nothing new."""
        kept = self._find(verdict.rollout)
        if kept.told is not None and verdict.at_ms < kept.told.at_ms:
            return
        kept.told = Told.by(verdict)
        if kept.withheld is not None or kept.due_ms < 0:
            self._schedule(verdict.rollout, kept, self._clock.now_ms())

    def moved(self, switch: Switch, digest: str) -> None:
        """Take an event of the switch: the lease that was granted before it counts no longer."""
        kept = self._find(switch.rollout)
        if switch.number <= kept.number:
            return
        kept.stopped = whole_stopped(switch)
        kept.number, kept.digest, kept.stops = switch.number, digest, tuple(_parts(switch))
        if kept.told is not None:
            self._urgent[switch.rollout] = None

    def due(self, caught_up: bool) -> Sequence[Lease]:
        """Return the leases to sign and append now; often none.

        Args:
            caught_up: whether all that was said and asked up to now, or shortly before, has been read.
        """
        now_ms = self._clock.now_ms()
        rollouts = dict.fromkeys(self._take_urgent() + self._take_batch(now_ms))
        if not rollouts:
            return []
        leases = [lease for rollout in rollouts if (lease := self._look(rollout, caught_up, now_ms)) is not None]
        if leases:
            self._metrics.count("leases_issued_total", len(leases))
        for word, count in self._counts.items():
            self._metrics.set("leases_withheld", count, reason=word.value)
        return leases

    def forgotten(self) -> Sequence[str]:
        """Hand over the rollouts whose records can be taken back, each once."""
        handed, self._forgotten = self._forgotten, []
        return handed

    def withheld(self, rollout: str) -> Withheld | None:
        """Return why a rollout had no lease when it was looked at last, or None where it had one."""
        kept = self._kept.get(rollout)
        return kept.withheld if kept is not None else Withheld.NO_VERDICT

    def _find(self, rollout: str) -> _Kept:
        return self._kept.setdefault(rollout, _Kept())

    def _schedule(self, rollout: str, kept: _Kept, due_ms: int) -> None:
        if kept.due_ms != due_ms:
            kept.due_ms = due_ms
            heapq.heappush(self._queue, (due_ms, rollout))

    def _look_at_all(self, now_ms: int, which: Callable[[_Kept], bool]) -> None:
        for rollout, kept in self._kept.items():
            if which(kept):
                self._schedule(rollout, kept, now_ms)

    def _take_urgent(self) -> list[str]:
        rollouts = list(self._urgent)[:BATCH_MAX]
        for rollout in rollouts:
            del self._urgent[rollout]
        return rollouts

    def _take_batch(self, now_ms: int) -> list[str]:
        elapsed_ms = now_ms - self._batch_ms
        if 0 <= elapsed_ms < BATCH_MS:
            return []
        self._batch_ms = now_ms
        most = min(BATCH_MAX, max(0, elapsed_ms) * LEASES_PER_SECOND // 1000)
        if elapsed_ms < 0:
            # The clock was set back: what is due by the old one would wait until it has caught up.
            self._look_at_all(now_ms, lambda kept: kept.due_ms >= 0)
        seeing = self._sight.sight().seeing
        if seeing and not self._seeing:
            # It sees again: whoever waits for that need not wait until it would have been looked at anyway.
            self._look_at_all(now_ms, lambda kept: kept.withheld is Withheld.BLIND)
        self._seeing = seeing
        found: list[str] = []
        while self._queue and self._queue[0][0] <= now_ms and len(found) < most:
            due_ms, rollout = heapq.heappop(self._queue)
            known = self._kept.get(rollout)
            if known is not None and known.due_ms == due_ms:
                found.append(rollout)
        return found

    def _look(self, rollout: str, caught_up: bool, now_ms: int) -> Lease | None:
        kept = self._kept[rollout]
        told = kept.told
        if told is not None and now_ms - told.at_ms > FORGET_SECONDS * 1000:
            self._forget(rollout, kept)
            return None
        word = judge(stopped=kept.stopped, told=told, seeing=self._seeing, now_ms=now_ms, terms=self._terms)
        if word is None and not caught_up:
            word = Withheld.READING
        self._note(kept, word)
        soon_ms = BATCH_MS if word is Withheld.READING else self._terms.renew_ms
        self._schedule(rollout, kept, now_ms + soon_ms)
        if word is not None or told is None:
            return None
        return Lease(
            rollout=rollout,
            lane=self._lane,
            number=kept.number,
            digest=kept.digest,
            decision=DecisionWord.PROCEED,
            issued_ms=now_ms,
            expires_ms=now_ms + self._terms.lasts_ms,
            watermark_ms=told.at_ms,
            heard_share=told.heard_share,
            stops=list(kept.stops),
            drill=told.drill,
        )

    def _note(self, kept: _Kept, word: Withheld | None) -> None:
        if kept.counted is not None:
            self._counts[kept.counted] -= 1
        if word is not None:
            self._counts[word] += 1
        kept.withheld = kept.counted = word

    def _forget(self, rollout: str, kept: _Kept) -> None:
        self._note(kept, None)
        # Where its switch stands is kept: a verdict may come again, and a stop must not be forgotten.
        kept.told, kept.due_ms, kept.withheld = None, -1, Withheld.NO_VERDICT
        if not kept.number:
            del self._kept[rollout]
        self._forgotten.append(rollout)


def _parts(switch: Switch) -> Iterator[ScopedStop]:
    for stop in standing_stops(switch):
        if not stop.scope.whole:
            yield stop
