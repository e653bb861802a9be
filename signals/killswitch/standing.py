"""Where a rollout's kill switch stands: the whole of it, its parts, and how the detector's word binds.

Between the state machine, which moves it, and the event, which carries all of it: `standing_after` of an event is the
standing that the event was made from, so a restart that reads the last event knows as much as the process that died.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from detectors.scope import WHOLE, Scope
from detectors.verdict import DecisionWord
from signals.events import Mode, ScopedStop, Switch, SwitchState

STOPS = frozenset({SwitchState.HELD, SwitchState.KILLED})
# Parts of one rollout that may be stopped, or kept out of the detector's reach, at once.
PARTS_MAX = 64

_DECISION_OF_STATE = {
    SwitchState.OBSERVING: DecisionWord.PROCEED,
    SwitchState.HELD: DecisionWord.HOLD,
    SwitchState.KILLED: DecisionWord.KILL,
    SwitchState.RELEASED: DecisionWord.PROCEED,
    SwitchState.MUTED: DecisionWord.PROCEED,
}
_STRICTNESS = (DecisionWord.PROCEED, DecisionWord.UNKNOWN, DecisionWord.HOLD, DecisionWord.KILL)


def decision_of(state: SwitchState, watching: DecisionWord) -> DecisionWord:
    """Return what a state means for a rollout system; `watching` is what the verdict says of a watched rollout."""
    return _DECISION_OF_STATE.get(state, watching)


def strictest(decisions: Iterable[DecisionWord]) -> DecisionWord:
    """Return the strictest of some decisions; `proceed` of none."""
    return max(decisions, key=_STRICTNESS.index, default=DecisionWord.PROCEED)


@dataclass(frozen=True, slots=True)
class Stop:
    """A hold or kill that stands.

    Attributes:
        state: `held` or `killed`.
        by: who set it.
        number: of the event that set it.
        until_ms: when it ends by itself; 0: not by itself.
        beneath: the detector held when a person's hold began.
    """

    state: SwitchState
    by: Literal["detector", "person"]
    number: int
    until_ms: int = 0
    beneath: bool = False

    def scoped(self, scope: Scope) -> ScopedStop:
        """Return it as it stands in events."""
        return ScopedStop(
            scope=scope,
            state=self.state,
            until_ms=self.until_ms,
            number=self.number,
            by=self.by,
            beneath=self.beneath,
        )

    @classmethod
    def of(cls, stop: ScopedStop) -> "Stop":
        """Return what an event says of a stop."""
        return cls(stop.state, stop.by, stop.number, stop.until_ms, stop.beneath)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one rollout's switch stands: everything its last event says, and nothing else.

    Attributes:
        state: of the whole; a dry-run stop does not move it.
        decision: what that means by itself, whatever the parts.
        stop: the stop of the whole that binds; None unless `state` is one.
        parts: the stops of parts that bind.
        dry: stops that bind nobody; that of the whole under `WHOLE`.
        released: parts that the detector stops no more.
        mode: how the detector's word binds.
        mode_until_ms: when the mode ends by itself; 0: not by itself.
        armed: the detector may still move the switch.
        watermark_ms: event time of the verdict that moved it last; 0 if no verdict did.
        number: of the last event; 0 before the first.
        digest: SHA-256 of the last event's payload, hexadecimal; empty before the first.
    """

    state: SwitchState = SwitchState.OBSERVING
    decision: DecisionWord = DecisionWord.PROCEED
    stop: Stop | None = None
    parts: Mapping[Scope, Stop] = field(default_factory=dict)
    dry: Mapping[Scope, Stop] = field(default_factory=dict)
    released: frozenset[Scope] = frozenset()
    mode: Mode = Mode.LIVE
    mode_until_ms: int = 0
    armed: bool = True
    watermark_ms: int = 0
    number: int = 0
    digest: str = ""

    @property
    def stops(self) -> bool:
        """Tell whether a stop of the whole binds."""
        return self.stop is not None

    @property
    def killed(self) -> bool:
        """Tell whether a kill of the whole or of any part binds."""
        whole = () if self.stop is None else (self.stop,)
        return any(stop.state is SwitchState.KILLED for stop in (*whole, *self.parts.values()))

    @property
    def strictest(self) -> DecisionWord:
        """What a rollout system must do that knows nothing of parts."""
        parts = [decision_of(stop.state, DecisionWord.HOLD) for stop in self.parts.values()]
        return strictest([self.decision, *parts])

    @property
    def ends_ms(self) -> int:
        """When the first hold, mute or dry run ends by itself; 0: none does."""
        whole = () if self.stop is None else (self.stop,)
        ends = [self.mode_until_ms, *(stop.until_ms for stop in (*whole, *self.parts.values()))]
        return min((end for end in ends if end), default=0)

    def room_for(self, scope: Scope) -> bool:
        """Tell whether one more part may be kept, or this one is kept already."""
        known = {*self.parts, *self.dry, *self.released, WHOLE}
        return scope in known or len(known) <= PARTS_MAX

    def stop_of(self, scope: Scope, *, dry: bool = False) -> Stop | None:
        """Return the stop of exactly this part, or of the whole."""
        if dry:
            return self.dry.get(scope)
        return self.stop if scope.whole else self.parts.get(scope)

    def state_of(self, scope: Scope, *, dry: bool = False) -> SwitchState:
        """Return where this part, or the whole, stands."""
        stop = self.stop_of(scope, dry=dry)
        if stop is not None:
            return stop.state
        if scope.whole:
            return self.state
        return SwitchState.RELEASED if scope in self.released or not self.armed else SwitchState.OBSERVING

    def with_part(self, scope: Scope, stop: Stop | None, *, dry: bool = False) -> "Standing":
        """Return the standing in which a part is stopped so, or not at all."""
        before = self.dry if dry else self.parts
        after = {known: other for known, other in before.items() if known != scope}
        if stop is not None:
            after[scope] = stop
        return replace(self, dry=after) if dry else replace(self, parts=after)

    def told(self) -> dict[str, Any]:
        """Return the fields of `Switch` that say all this."""
        dry = sorted(self.dry.items(), key=_by_text)
        return {
            "decision": self.strictest,
            "armed": self.armed,
            "mode": self.mode,
            "mode_until_ms": self.mode_until_ms,
            "whole": self.state,
            "whole_decision": self.decision,
            "whole_stop": None if self.stop is None else self.stop.scoped(WHOLE),
            "stops": [stop.scoped(scope) for scope, stop in sorted(self.parts.items(), key=_by_text)],
            "dry_stops": [stop.scoped(scope) for scope, stop in dry],
            "released": sorted(self.released, key=lambda scope: scope.text),
            "watermark_ms": self.watermark_ms,
        }


def standing_after(switch: Switch, digest: str) -> Standing:
    """Return where a switch stands after the event whose data is `switch`."""
    if switch.whole is None:
        return _standing_of_before(switch, digest)
    return Standing(
        state=switch.whole,
        decision=switch.whole_decision or decision_of(switch.whole, DecisionWord.UNKNOWN),
        stop=None if switch.whole_stop is None else Stop.of(switch.whole_stop),
        parts={stop.scope: Stop.of(stop) for stop in switch.stops},
        dry={stop.scope: Stop.of(stop) for stop in switch.dry_stops},
        released=frozenset(switch.released),
        mode=switch.mode,
        mode_until_ms=switch.mode_until_ms,
        armed=switch.armed,
        watermark_ms=switch.watermark_ms,
        number=switch.number,
        digest=digest,
    )


def _standing_of_before(switch: Switch, digest: str) -> Standing:
    """Read an event of a release that knew neither parts nor modes: the whole is all there is."""
    stop = None
    if switch.state in STOPS:
        stop = Stop(switch.state, "person" if switch.cause == "person" else "detector", switch.number)
    dry = switch.dry_run and stop is not None
    return Standing(
        state=SwitchState.OBSERVING if dry else switch.state,
        decision=DecisionWord.PROCEED if dry else switch.decision,
        stop=None if dry else stop,
        dry={WHOLE: stop} if dry and stop is not None else {},
        armed=switch.armed,
        watermark_ms=switch.watermark_ms,
        number=switch.number,
        digest=digest,
    )


def _by_text(item: tuple[Scope, Stop]) -> str:
    return item[0].text
