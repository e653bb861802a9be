"""All rollouts at a glance: what is stopped, what is rising, and whether Cordon sees.

Between the views and every page, which all begin with it. Made once for everybody who looks, and anew when something
has changed. Invariants: whatever is stopped is in it, however long ago its last verdict came; and no state is told by
its colour alone.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from detectors.scope import WHOLE
from detectors.verdict import Reason, VerdictWord
from ingest.clock import Clock
from ingest.sight import Sight, SightSource
from signals.delivery.answers import Answers
from signals.delivery.joined import Facts, RolloutVerdict
from signals.delivery.views import Views
from signals.events import PendingRelease, ScopedStop, SwitchState

LISTED_MAX = 500
# Leases run out and verdicts grow old by the clock: rows are judged anew so often, whatever else happens.
JUDGED_MS = 2000
_RISING = frozenset({Reason.EVIDENCE_RISING.value, Reason.HOLD_EVIDENCE.value, Reason.TOO_FEW_DEVICES.value})
_MARKS = {
    "killed": "\N{MULTIPLICATION X}",
    "held": "\N{DOUBLE VERTICAL BAR}",
    "paused": "\N{DOTTED CIRCLE}",
    "rising": "\N{NORTH EAST ARROW}",
    "watching": "\N{BULLSEYE}",
    "observing": "\N{BULLET}",
    "released": "\N{LEFTWARDS ARROW WITH HOOK}",
    "muted": "\N{EM DASH}",
    "dry_run": "\N{WHITE CIRCLE}",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How a rollout stands, in one word with its mark.

    Attributes:
        kind: a closed word, which the style sheet knows.
        text: the word for people.
        mark: a sign that tells it without colour.
    """

    kind: str
    text: str

    @property
    def mark(self) -> str:
        """Return the sign of the kind."""
        return _MARKS[self.kind]


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One rollout in a list.

    Attributes:
        said: verdict, switch and lease, joined.
        standing: how it stands.
        stopped: a stop of the whole or a part binds.
        rising: nothing is stopped, and evidence of harm gathers.
        evidence: highest evidence so far, as a share of what a kill needs; 0 to 1.
        hold_at: what a hold needs, likewise.
    """

    said: RolloutVerdict
    standing: Standing
    stopped: bool
    rising: bool
    evidence: float
    hold_at: float

    @property
    def name(self) -> str:
        """Return what is shipped."""
        return f"{self.said.product} {self.said.version}"


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at one moment.

    Attributes:
        rows: stopped ones first, then rising ones, then those whose verdicts came last; bounded.
        stopped: how many are stopped.
        killed: how many of them as a whole for good.
        rising: how many rise.
        sight: whether Cordon sees; None where nobody watches.
        pending: releases that wait for a second person.
        newest_ms: event time of the newest verdict; 0 where there is none.
        more: more rollouts are known than are listed.
    """

    rows: Sequence[RolloutRow]
    stopped: int
    killed: int
    rising: int
    sight: Sight | None
    pending: Sequence[PendingRelease]
    newest_ms: int
    more: bool

    @property
    def headline(self) -> str:
        """Return the state of things in one sentence."""
        if self.stopped:
            names = ", ".join(row.name for row in self.rows[: min(2, self.stopped)])
            rest = f" and {self.stopped - 2} more" if self.stopped > 2 else ""
            what = f"{self.stopped} stopped: {names}{rest}."
        else:
            what = "Nothing is stopped."
        what += f" {self.rising} rising." if self.rising else " Nothing is rising."
        if self.sight is not None:
            what += " Cordon sees." if self.sight.seeing else " CORDON IS BLIND."
        return what


@dataclass(frozen=True, slots=True)
class _Judged:
    """A row, and what it was made of."""

    facts: Facts
    period: tuple[int, bool]
    row: RolloutRow

    def holds(self, facts: Facts, period: tuple[int, bool]) -> bool:
        """Tell whether a row made now would be the same: its facts are the very objects, and the time is the same."""
        was = self.facts
        return (
            self.period == period
            and was.verdict is facts.verdict
            and was.switch is facts.switch
            and was.declared is facts.declared
            and was.lease is facts.lease
        )


class Overviews:
    """Makes overviews; any thread. A rollout that did not change keeps its row, the very object."""

    def __init__(self, views: Views, answers: Answers, sight: SightSource | None, clock: Clock) -> None:
        """Take what is known, what answers for it, whether Cordon sees, and the wall clock."""
        self._views, self.answers, self._sight, self._clock = views, answers, sight, clock
        self._lock = threading.Lock()
        self._made: tuple[object, Overview] | None = None
        self._judged: dict[str, _Judged] = {}

    def stamp(self) -> tuple[int, int]:
        """Return what is another when the overview may be another."""
        return self._views.revision, self._clock.now_ms() // JUDGED_MS

    def now(self) -> Overview:
        """Return the overview of now."""
        with self._lock:
            stamp = self.stamp()
            if self._made is None or self._made[0] != stamp:
                self._made = stamp, self._make()
            return self._made[1]

    def row(self, rollout: str) -> tuple[Facts, RolloutRow] | None:
        """Return one rollout, listed or not; None for one that is in no topic."""
        facts = self._views.facts(rollout)
        return None if facts is None else (facts, row_of(self.answers.verdict(facts, WHOLE)))

    def _make(self) -> Overview:
        sight = None if self._sight is None else self._sight.sight()
        # A set with an order: what is stopped and what is known beside the newest comes behind them.
        names = dict.fromkeys(self._views.newest(LISTED_MAX))
        names.update(dict.fromkeys(self._views.stopped(LISTED_MAX)))
        if len(names) < LISTED_MAX:
            names.update(dict.fromkeys(self._views.known(LISTED_MAX)))
        period = self._clock.now_ms() // JUDGED_MS, sight is None or sight.seeing
        judged = {}
        for rollout in names:
            if (facts := self._views.facts(rollout)) is not None:
                judged[rollout] = self._judge(facts, period)
        self._judged = judged
        rows = sorted((one.row for one in judged.values()), key=_order)
        stopped = [row for row in rows if row.stopped]
        return Overview(
            rows=rows[:LISTED_MAX],
            stopped=len(stopped),
            killed=sum(row.standing.kind == "killed" for row in stopped),
            rising=sum(row.rising for row in rows),
            sight=sight,
            pending=self._views.pending(),
            newest_ms=max((row.said.at_ms for row in rows), default=0),
            more=len(judged) >= LISTED_MAX,
        )

    def _judge(self, facts: Facts, period: tuple[int, bool]) -> _Judged:
        known = self._judged.get(facts.rollout)
        if known is not None and known.holds(facts, period):
            return known
        row = row_of(self.answers.verdict(facts, WHOLE))
        # Whoever draws rows knows by the object that one has not changed.
        return _Judged(facts, period, known.row if known is not None and known.row == row else row)


def row_of(said: RolloutVerdict) -> RolloutRow:
    """Return how a rollout is listed."""
    evidence = said.evidence
    needed = evidence.log10_needed_to_kill if evidence else 0.0
    stopped = bool(said.stops)
    rising = not stopped and (said.verdict is VerdictWord.REGRESSED or said.reason in _RISING)
    return RolloutRow(
        said=said,
        standing=_standing(said, rising=rising),
        stopped=stopped,
        rising=rising,
        evidence=min(1.0, max(0.0, evidence.log10_evidence_max / needed)) if evidence and needed > 0 else 0.0,
        hold_at=min(1.0, evidence.log10_needed_to_hold / needed) if evidence and needed > 0 else 0.0,
    )


def stop_text(stop: ScopedStop) -> str:
    """Return a stop as people say it."""
    return f"{stop.scope.text or 'the whole rollout'} {stop.state.value}"


def _standing(said: RolloutVerdict, *, rising: bool) -> Standing:
    whole = [stop for stop in said.stops if stop.scope.whole]
    for stop in whole:
        return Standing(stop.state.value, stop.state.value)
    if said.stops:
        worst = "killed" if any(stop.state is SwitchState.KILLED for stop in said.stops) else "held"
        parts = len(said.stops)
        return Standing(worst, f"{worst}, {parts} part{'s' if parts > 1 else ''}")
    if said.state in (SwitchState.RELEASED, SwitchState.MUTED):
        return Standing(said.state.value, said.state.value)
    if said.dry_run:
        return Standing("dry_run", "dry run")
    if rising:
        return Standing("rising", "rising")
    if not said.proceed and said.leases:
        return Standing("paused", "paused, no lease")
    if said.state is SwitchState.WATCHING:
        return Standing("watching", "watching")
    return Standing("observing", "goes on" if said.proceed else "observing")


def _order(row: RolloutRow) -> tuple[bool, bool, bool, float, int, str]:
    return (
        not row.stopped, row.standing.kind != "killed", not row.rising, -row.evidence, -row.said.at_ms, row.said.rollout
    )  # fmt: skip
