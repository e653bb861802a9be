"""How verdicts and the time move a kill switch, as pure functions over the table.

They stand between a verdict, or the end of a hold, and the signed event: `by_detector` and `by_time` say how the switch
moves next, if it does, and everything else (numbering, signing, writing) follows from that. They are asked again until
nothing moves, since one verdict may stop several parts. Invariants: a live kill latches, and only a person's release
leaves it; after that the detector never moves the switch again, and after the release of a hold it only kills; the same
input twice moves it once; a part is never laxer than the whole; and what is unknown never lifts a stop nor makes one
worse.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from detectors.scope import WHOLE, Scope
from detectors.verdict import DecisionWord, ScopedDecision, Verdict
from signals.events import Mode, SwitchState
from signals.killswitch.standing import STOPS, Standing, Stop, decision_of
from signals.killswitch.table import BLIND_VERDICTS, LIFTS, STATE_OF_ROW, TABLE, Given, Row, given_of, row_of

Cause = Literal["detector", "person", "timer"]


class Ended(enum.StrEnum):
    """What ended by itself: the reason of an event whose cause is `timer`."""

    HOLD = "hold_ended"
    MUTE = "mute_ended"
    DRY_RUN = "dry_run_ended"


ENDED_DOCS: dict[Ended, str] = {
    Ended.HOLD: "The end that a person gave a hold has come; a hold of the detector beneath it stands on.",
    Ended.MUTE: "The mute's end has come: the detector's word binds again, its latest one at once.",
    Ended.DRY_RUN: "The dry run's end has come: the detector's word binds again, its latest one at once.",
}


@dataclass(frozen=True, slots=True)
class Transition:
    """One move of a switch; it makes one event.

    Attributes:
        scope: the part that moves, or the whole.
        previous_state: where that stood.
        state: where it stands now.
        cause: who moves it.
        after: where the whole switch stands then, but for the event's own digest.
        dry_run: the event binds nobody, and no stop that binds is moved.
        until_ms: when what was set ends by itself; 0: not by itself.
        ended: what ended, where the time moved it.
        scoped: the verdict's word on this part, where it decided.
    """

    scope: Scope
    previous_state: SwitchState
    state: SwitchState
    cause: Cause
    after: Standing
    dry_run: bool = False
    until_ms: int = 0
    ended: Ended | None = None
    scoped: ScopedDecision | None = None

    @property
    def decision(self) -> DecisionWord:
        """What the event says to a rollout system that knows nothing of parts."""
        if self.dry_run and self.state in STOPS:
            return decision_of(self.state, DecisionWord.HOLD)
        return self.after.strictest


def by_detector(standing: Standing, verdict: Verdict) -> Transition | None:
    """Return the next move that a verdict makes, or None where it makes none (any more)."""
    if not standing.armed or standing.mode is Mode.MUTED:
        return None
    given = given_of(verdict)
    old = verdict.at_ms < standing.watermark_ms
    if not old and _overflows(standing, verdict) and given not in (Given.HOLD, Given.KILL):
        # A part that finds no room any more is stopped with the whole.
        given = Given.HOLD
    dry = verdict.dry_run or standing.mode is Mode.DRY_RUN
    # Told again, out of turn: a newer verdict has already been obeyed. A kill is never too old.
    whole = _whole_by_detector(standing, given, verdict, dry) if not old or given is Given.KILL else None
    return whole or _lift_of_part(standing, verdict, dry, old) or _stop_of_part(standing, verdict, dry, old)


def _whole_by_detector(standing: Standing, given: Given, verdict: Verdict, dry: bool) -> Transition | None:
    if dry and standing.stops:
        # A live stop is lifted by a live event, or those who obeyed it would wait for ever; and dry-run adds no stop.
        if given not in LIFTS:
            return None
        dry = False
    target = TABLE.get((row_of(standing, dry=dry), given))
    if target is None:
        return None
    state = STATE_OF_ROW[target]
    stop = Stop(state, "detector", standing.number + 1) if state in STOPS else None
    after = replace(standing, number=standing.number + 1, watermark_ms=verdict.at_ms)
    if dry and stop is not None:
        after = after.with_part(WHOLE, stop, dry=True)
    else:
        kept = {scope: other for scope, other in after.dry.items() if dry and not scope.whole}
        after = replace(after, state=state, decision=decision_of(state, verdict.decision), stop=stop, dry=kept)
    previous = standing.state_of(WHOLE, dry=dry)
    return Transition(WHOLE, previous, state, "detector", after, dry_run=dry)


def _lift_of_part(standing: Standing, verdict: Verdict, dry: bool, old: bool) -> Transition | None:
    if old or given_of(verdict) not in LIFTS:
        return None
    listed = {said.scope for said in verdict.scoped}
    for scope, binds_nobody in _lifted(standing, dry):
        if scope not in listed:
            moved = _move_part(standing, scope, Given.CLEAR, verdict, binds_nobody, None)
            if moved is not None:
                return moved
    return None


def _stop_of_part(standing: Standing, verdict: Verdict, dry: bool, old: bool) -> Transition | None:
    if standing.state is SwitchState.KILLED:
        return None
    for said in sorted(verdict.scoped, key=lambda one: one.scope.text):
        scope, asked = said.scope, _given_of_part(said, verdict)
        if scope.whole or asked is None or (old and asked is not Given.KILL):
            continue
        # A release of the whole from a hold is a release of each part from one.
        if standing.state is SwitchState.RELEASED and asked is not Given.KILL:
            continue
        # A dry run adds nothing to a stop that binds, and a person's release of a part is the last word on it.
        if scope in standing.released or not standing.room_for(scope) or (dry and scope in standing.parts):
            continue
        moved = _move_part(standing, scope, asked, verdict, dry, said)
        if moved is not None:
            return moved
    return None


def _lifted(standing: Standing, dry: bool) -> Iterator[tuple[Scope, bool]]:
    """Yield the parts that a verdict may lift; a live stop is lifted by a live event, even by a dry verdict."""
    for scope in sorted(standing.parts, key=lambda part: part.text):
        yield scope, False
    for scope in sorted(standing.dry, key=lambda part: part.text):
        if dry and not scope.whole:
            yield scope, True


def _move_part(
    standing: Standing, scope: Scope, given: Given, verdict: Verdict, dry: bool, said: ScopedDecision | None
) -> Transition | None:
    target = TABLE.get((row_of(standing, scope, dry=dry), given))
    if target is None:
        return None
    state = STATE_OF_ROW[target]
    number = standing.number + 1
    stop = Stop(state, "detector", number) if state in STOPS else None
    after = replace(standing, number=number, watermark_ms=verdict.at_ms).with_part(scope, stop, dry=dry)
    if not dry:
        after = after.with_part(scope, None, dry=True)
    return Transition(scope, standing.state_of(scope, dry=dry), state, "detector", after, dry_run=dry, scoped=said)


def _given_of_part(said: ScopedDecision, verdict: Verdict) -> Given | None:
    if said.decision is DecisionWord.KILL:
        return Given.HOLD if verdict.verdict in BLIND_VERDICTS else Given.KILL
    return Given.HOLD if said.decision is DecisionWord.HOLD else None


def _overflows(standing: Standing, verdict: Verdict) -> bool:
    return any(
        not standing.room_for(said.scope) and said.decision in (DecisionWord.HOLD, DecisionWord.KILL)
        for said in verdict.scoped
    )


def by_time(standing: Standing, now_ms: int, verdict: Verdict | None) -> Transition | None:
    """Return the move that the earliest end at or before `now_ms` makes, or None where none has come.

    Args:
        standing: of the rollout.
        now_ms: the wall clock.
        verdict: the detector's latest word on it, so that no end of a person's hold says `proceed` for the moment
            until that is applied.
    """
    if not standing.ends_ms or standing.ends_ms > now_ms:
        return None
    if standing.mode_until_ms == standing.ends_ms:
        ended = Ended.MUTE if standing.mode is Mode.MUTED else Ended.DRY_RUN
        after = in_mode(standing, Mode.LIVE, 0)
        return Transition(WHOLE, standing.state, after.state, "timer", after, ended=ended)
    stops = [(WHOLE, standing.stop), *sorted(standing.parts.items(), key=lambda item: item[0].text)]
    scope, stop = next((part, stop) for part, stop in stops if stop and stop.until_ms == standing.ends_ms)
    return _hold_ended(standing, scope, stop, verdict)


def _hold_ended(standing: Standing, scope: Scope, stop: Stop, verdict: Verdict | None) -> Transition:
    number = standing.number + 1
    left = None
    if _detector_holds(standing, scope, stop, verdict):
        left = Stop(SwitchState.HELD, "detector", number)
    after = replace(standing, number=number, watermark_ms=0)
    if not scope.whole:
        after = after.with_part(scope, left)
        return Transition(scope, stop.state, after.state_of(scope), "timer", after, ended=Ended.HOLD)
    state = SwitchState.HELD if left else _at_rest(standing)
    decision = decision_of(state, DecisionWord.UNKNOWN)
    if state is SwitchState.OBSERVING and verdict is not None and given_of(verdict) is Given.WARY:
        # It is watched again by the next event; nobody is told to proceed in between.
        decision = DecisionWord.UNKNOWN
    after = replace(after, state=state, decision=decision, stop=left)
    return Transition(WHOLE, stop.state, state, "timer", after, ended=Ended.HOLD)


def _at_rest(standing: Standing) -> SwitchState:
    if not standing.armed:
        return SwitchState.RELEASED
    return SwitchState.MUTED if standing.mode is Mode.MUTED else SwitchState.OBSERVING


def _detector_holds(standing: Standing, scope: Scope, stop: Stop, verdict: Verdict | None) -> bool:
    """Tell whether the detector's own hold stands when a person's ends: it does unless the detector is clear."""
    if not standing.armed or standing.mode is not Mode.LIVE or scope in standing.released:
        return False
    if verdict is None or (verdict.dry_run and not stop.beneath):
        return stop.beneath
    listed = any(said.scope == scope for said in verdict.scoped if _given_of_part(said, verdict) is not None)
    given = given_of(verdict)
    stops = given in (Given.HOLD, Given.KILL) if scope.whole else listed
    return stops or (stop.beneath and given not in LIFTS)


def in_mode(standing: Standing, mode: Mode, until_ms: int) -> Standing:
    """Return the standing in which the detector's word binds so; its own holds stand in a live mode only."""
    after = replace(standing, number=standing.number + 1, mode=mode, mode_until_ms=until_ms, dry={}, watermark_ms=0)
    row = row_of(standing)
    if mode is Mode.MUTED and row not in (Row.HELD_BY_PERSON, Row.KILLED):
        after = replace(after, state=SwitchState.MUTED, decision=DecisionWord.PROCEED, stop=None)
    elif row in (Row.MUTED, Row.HELD) and mode is not Mode.MUTED:
        after = replace(after, state=SwitchState.OBSERVING, decision=DecisionWord.PROCEED, stop=None)
    if mode is Mode.LIVE:
        return after
    if after.stop is not None:
        after = replace(after, stop=replace(after.stop, beneath=False))
    parts = {scope: replace(stop, beneath=False) for scope, stop in after.parts.items() if stop.by == "person"}
    return replace(after, parts=parts)
