"""The verdict of a rollout joined with its switch and its lease: what one answer says of a part of it.

Pure functions between the views and the routes. Invariant: whether a rollout may go on is decided in
`signals.killswitch.effective` and nowhere here.
"""

from dataclasses import dataclass

import msgspec

from detectors.scope import Scope
from detectors.verdict import DecisionWord, Evidence, Verdict, VerdictWord
from ingest.rollouts import Rollout
from signals.events import Lease, ScopedStop, Switch, SwitchState
from signals.killswitch.effective import Effective, EffectiveReason, effective, standing_stops
from signals.killswitch.lease import LeaseTerms, Told, Withheld, judge, whole_stopped

NO_VERDICT = "no_verdict"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the topics say of one rollout; each part is None while its topic has nothing."""

    rollout: str
    verdict: Verdict | None = None
    switch: Switch | None = None
    declared: Rollout | None = None
    lease: Lease | None = None

    @property
    def named(self) -> Verdict | Switch | Rollout | None:
        """Return whatever says what is shipped; None for a rollout that nothing is known of."""
        return self.verdict or self.switch or self.declared


class RolloutVerdict(msgspec.Struct, kw_only=True):
    """What `GET /v1/rollouts/{id}/verdict` answers: what to do, and the statistics' word and the switch's beside it.

    Exactly one of `proceed`, `held` and `killed` is true.

    Attributes:
        decision: what a rollout system must do with the part it asked for. In a lane without leases it is the verdict's
            own word where nothing stops the rollout, and may be `unknown`.
        proceed: it may go on, until `lease_expires_ms` where the lane has leases.
        held: it must pause: a hold stands, or nothing lets it go on.
        killed: it must stop for good: a kill stands that binds.
        decision_reason: why, as a closed word.
        decision_sentence: why, for a person.
        decision_until_ms: when the answer ends by itself: the lease's end, or the hold's; 0: not by itself.
        leases: whether this lane has leases; where it has none, `proceed` has no end.
        lease_expires_ms: when the latest lease ends or has ended; null where there was none yet.
        lease_withheld: why the lease is not renewed now, as a closed word; null where it is, or where there are none.
        stops: every stop of the whole or a part that binds now.
        state: where the switch of the whole stands, in a dry run too.
        verdict: what the statistics say.
        reason: of the verdict, or `no_verdict` where none was given yet.
        sentence: of the verdict, for a person.
        at_ms: event time the verdict holds for; 0 where there is none.
        dry_run: the verdict or the last event binds nobody.
        verdict_decision: what policy makes of the verdict, whatever people decided.
        number: of the switch's last event; 0 before the first.
        decided_by: who moved the switch last; empty before the first event.
        decided_reason: why, for a person.
        evidence: the numbers behind the verdict.
    """

    rollout: str
    vendor: str
    product: str
    version: str
    verdict: VerdictWord
    decision: DecisionWord
    proceed: bool
    held: bool
    killed: bool
    decision_reason: EffectiveReason
    decision_sentence: str
    decision_until_ms: int
    leases: bool
    lease_expires_ms: int | None
    lease_withheld: Withheld | None
    stops: list[ScopedStop]
    state: SwitchState
    reason: str
    sentence: str
    at_ms: int
    dry_run: bool
    verdict_decision: DecisionWord
    number: int
    decided_by: str
    decided_reason: str
    evidence: Evidence | None


def effective_of(facts: Facts, target: Scope, now_ms: int, terms: LeaseTerms | None) -> Effective:
    """Return what a rollout system must do with `target`.

    Args:
        facts: what is known of the rollout.
        target: the part; what is not known of it stays empty.
        now_ms: the wall clock.
        terms: of the lane's leases; None where it has none.
    """
    if terms is not None:
        return effective(facts.switch, facts.lease, target, now_ms)
    verdict = facts.verdict
    said = verdict.decision if verdict else DecisionWord.UNKNOWN
    if verdict is not None and verdict.dry_run and said in (DecisionWord.HOLD, DecisionWord.KILL):
        # What would stop it in earnest binds nobody in a dry run, as no lease is withheld for it.
        said = DecisionWord.PROCEED
    return effective(facts.switch, None, target, now_ms, verdict=said)


def withheld_of(facts: Facts, now_ms: int, terms: LeaseTerms | None, *, seeing: bool = True) -> Withheld | None:
    """Return why the rollout's lease is not renewed now; None where it is, or the lane has none."""
    if terms is None:
        return None
    return judge(
        stopped=whole_stopped(facts.switch),
        told=Told.by(facts.verdict) if facts.verdict else None,
        seeing=seeing,
        now_ms=now_ms,
        terms=terms,
    )


def rollout_verdict(
    facts: Facts, target: Scope, now_ms: int, terms: LeaseTerms | None, *, seeing: bool = True
) -> RolloutVerdict:
    """Return the answer for a part of a rollout that something is known of.

    Args:
        facts: what is known; at least one topic has the rollout.
        target: the part; what is not known of it stays empty.
        now_ms: the wall clock; only leases look at it.
        terms: of the lane's leases; None where it has none.
        seeing: whether Cordon sees now.
    """
    named, verdict, switch = facts.named, facts.verdict, facts.switch
    assert named is not None
    found = effective_of(facts, target, now_ms, terms)
    said = verdict.decision if verdict else DecisionWord.UNKNOWN
    released = switch is not None and (switch.whole or switch.state) is SwitchState.RELEASED
    return RolloutVerdict(
        rollout=facts.rollout,
        vendor=named.vendor,
        product=named.product,
        version=named.version,
        verdict=verdict.verdict if verdict else VerdictWord.NO_DATA,
        decision=said if found.reason is EffectiveReason.VERDICT and not released else found.decision,
        proceed=found.proceed,
        held=found.held,
        killed=found.killed,
        decision_reason=found.reason,
        decision_sentence=found.sentence,
        decision_until_ms=found.until_ms,
        leases=terms is not None,
        lease_expires_ms=facts.lease.expires_ms if facts.lease and terms is not None else None,
        lease_withheld=withheld_of(facts, now_ms, terms, seeing=seeing),
        stops=list(standing_stops(switch)),
        state=_state(switch) if switch else SwitchState.OBSERVING,
        reason=verdict.reason.value if verdict else NO_VERDICT,
        sentence=verdict.sentence if verdict else "no verdict was given on this rollout yet: no data is not health",
        at_ms=verdict.at_ms if verdict else 0,
        dry_run=(switch.dry_run if switch else False) or (verdict.dry_run if verdict else False),
        verdict_decision=said,
        number=switch.number if switch else 0,
        decided_by=(switch.name or switch.cause) if switch else "",
        decided_reason=switch.sentence if switch else "",
        evidence=verdict.evidence if verdict else None,
    )


def _state(switch: Switch) -> SwitchState:
    # A dry-run stop of the whole is shown as what it would be; what binds stands in `stops`.
    return switch.state if switch.whole is None or switch.scope.whole else switch.whole
