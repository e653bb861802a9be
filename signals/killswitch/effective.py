"""What a rollout system must do now: one pure function over the last event, the lease, the part it asks for, the time.

The verdict endpoint, the hooks of rollout systems and the client all stand on it, so none of them can be laxer than
another. Invariants: a stop that binds the target wins over everything; `proceed` needs a lease that has not run out;
and a field of the target that is not known never makes the answer laxer.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from detectors.scope import WHOLE, Scope
from detectors.verdict import DecisionWord
from signals.events import Lease, ScopedStop, Switch, SwitchState


class EffectiveReason(enum.StrEnum):
    """Why, as a closed word; the sentence beside it has the numbers."""

    KILLED = "killed"
    HELD = "held"
    LEASE_VALID = "lease_valid"
    NO_LEASE = "no_lease"
    LEASE_EXPIRED = "lease_expired"
    LEASE_OUTDATED = "lease_outdated"
    NOT_GRANTED = "not_granted"
    NOT_BELIEVED = "not_believed"
    VERDICT = "verdict"


EFFECTIVE_REASON_DOCS: dict[EffectiveReason, str] = {
    EffectiveReason.KILLED: "A kill of the whole rollout, or of a part that is or may be the one asked for, stands.",
    EffectiveReason.HELD: "A hold of the whole rollout, or of a part that is or may be the one asked for, stands.",
    EffectiveReason.LEASE_VALID: "No stop stands, and a lease says proceed until its end.",
    EffectiveReason.NO_LEASE: "No stop stands, but no lease was ever granted: Cordon has not said go.",
    EffectiveReason.LEASE_EXPIRED: "No stop stands, but the last lease has run out: Cordon is blind, silent or dead.",
    EffectiveReason.LEASE_OUTDATED: "The lease was granted before the switch's last event, which it does not know of.",
    EffectiveReason.NOT_GRANTED: "The lease says another word than proceed.",
    EffectiveReason.NOT_BELIEVED: "A client was sent something it can't believe; until that is resolved it is on hold.",
    EffectiveReason.VERDICT: "This lane has no leases: the latest verdict, or a person's release, is the last word.",
}
STOPS = frozenset({SwitchState.HELD, SwitchState.KILLED})
_DECISION_OF = {SwitchState.HELD: DecisionWord.HOLD, SwitchState.KILLED: DecisionWord.KILL}


@dataclass(frozen=True, slots=True)
class Effective:
    """What a rollout system must do with the part it asked for.

    Attributes:
        decision: `proceed`, `hold` or `kill`, never `unknown`.
        reason: why, as a closed word.
        sentence: why, with its numbers, for a person; the same until something changes.
        until_ms: when the answer ends by itself: the lease's end, or the hold's; 0: not by itself.
        scope: the part whose stop decided; the whole where none did.
    """

    decision: DecisionWord
    reason: EffectiveReason
    sentence: str
    until_ms: int = 0
    scope: Scope = WHOLE

    @property
    def proceed(self) -> bool:
        """Whether the rollout may go on."""
        return self.decision is DecisionWord.PROCEED

    @property
    def held(self) -> bool:
        """Whether it must pause where it is."""
        return self.decision is DecisionWord.HOLD

    @property
    def killed(self) -> bool:
        """Whether it must stop for good, and be rolled back where that is possible."""
        return self.decision is DecisionWord.KILL


def effective(
    switch: Switch | None,
    lease: Lease | None,
    target: Scope,
    now_ms: int,
    *,
    verdict: DecisionWord | None = None,
) -> Effective:
    """Return what a rollout system must do with `target` at `now_ms`.

    Args:
        switch: the data of the rollout's last event; None before the first.
        lease: its latest lease; None before the first.
        target: the part that is about to be pushed to; what is not known of it stays empty.
        now_ms: the wall clock of whoever asks.
        verdict: only for a lane that has no leases: what policy makes of the latest verdict. None wants a lease.

    Raises:
        ValueError: switch and lease are of different rollouts.
    """
    if switch is not None and lease is not None and switch.rollout != lease.rollout:
        raise ValueError(f"the event is of {switch.rollout}, the lease of {lease.rollout}")
    stop = _strictest(switch, lease, target)
    if stop is not None:
        return _stopped(stop)
    if verdict is not None:
        return _by_verdict(switch, verdict)
    return _by_lease(switch, lease, now_ms)


def standing_stops(switch: Switch | None) -> Iterator[ScopedStop]:
    """Yield every stop that binds after an event, that of the whole first."""
    if switch is None:
        return
    if switch.whole_stop is not None:
        yield switch.whole_stop
    elif (switch.whole in STOPS) if switch.whole is not None else (switch.state in STOPS and not switch.dry_run):
        # A release that knew no parts told of the whole only, and marked the whole event where it bound nobody.
        state = switch.whole or switch.state
        yield ScopedStop(scope=WHOLE, state=state, until_ms=switch.until_ms, number=switch.number)
    yield from switch.stops


def _strictest(switch: Switch | None, lease: Lease | None, target: Scope) -> ScopedStop | None:
    found = list(standing_stops(switch))
    # A lease that knows of a later event than we do names the stops of parts that we have not seen yet.
    found += lease.stops if lease is not None and lease.number > (switch.number if switch else 0) else []
    binding = [stop for stop in found if stop.state in STOPS and stop.scope.covers(target)]
    # Of two that are as strict the one that lasts longer decides; 0 lasts until somebody ends it.
    return max(
        binding,
        key=lambda stop: (stop.state is SwitchState.KILLED, stop.until_ms == 0, stop.until_ms),
        default=None,
    )


def _stopped(stop: ScopedStop) -> Effective:
    part = stop.scope.text or "the whole rollout"
    until = f", until {_time(stop.until_ms)}" if stop.until_ms else ""
    return Effective(
        decision=_DECISION_OF[stop.state],
        reason=EffectiveReason(stop.state.value),
        sentence=f"{part} is {stop.state.value} by event {stop.number}{until}",
        until_ms=stop.until_ms,
        scope=stop.scope,
    )


def _by_verdict(switch: Switch | None, verdict: DecisionWord) -> Effective:
    if switch is not None and (switch.whole or switch.state) is SwitchState.RELEASED:
        sentence = f"a person released it by event {switch.number}"
        return Effective(DecisionWord.PROCEED, EffectiveReason.VERDICT, sentence)
    if verdict is DecisionWord.PROCEED:
        return Effective(DecisionWord.PROCEED, EffectiveReason.VERDICT, "the latest verdict says proceed")
    # No stop stands: only a `proceed` lets it go on, and whatever else the verdict says is a pause.
    sentence = f"the latest verdict says {verdict.value}, which is no proceed"
    return Effective(DecisionWord.HOLD, EffectiveReason.VERDICT, sentence)


def _by_lease(switch: Switch | None, lease: Lease | None, now_ms: int) -> Effective:
    number = switch.number if switch else 0
    if lease is None:
        return _waiting(EffectiveReason.NO_LEASE, "no lease was granted yet: Cordon has not said proceed")
    if lease.decision is not DecisionWord.PROCEED:
        return _waiting(EffectiveReason.NOT_GRANTED, f"the lease says {lease.decision.value}, which is no proceed")
    if now_ms >= lease.expires_ms:
        sentence = f"the lease ran out at {_time(lease.expires_ms)} and was not renewed"
        return _waiting(EffectiveReason.LEASE_EXPIRED, sentence)
    if lease.number < number:
        sentence = f"the lease is of event {lease.number}, and event {number} came after it: the next lease is due"
        return _waiting(EffectiveReason.LEASE_OUTDATED, sentence)
    return Effective(
        decision=DecisionWord.PROCEED,
        reason=EffectiveReason.LEASE_VALID,
        sentence=f"nothing stops it, and the lease holds until {_time(lease.expires_ms)}",
        until_ms=lease.expires_ms,
    )


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _waiting(reason: EffectiveReason, sentence: str) -> Effective:
    return Effective(DecisionWord.HOLD, reason, sentence)
