"""From evidence to a decision: a pure function, the only place where the two meet.

Beside the whole rollout it decides on parts of it: within a tenant whose own evidence suffices it is killed while it is
held for the others. What it never does: read no data as health, say proceed while anything is late, lost, left out or
unbounded, or kill while activity is late. Each answer has its reason as a closed word and as a sentence with the
numbers in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from detectors.attribution import Finding, Guilt
from detectors.gate import GateAnswer
from detectors.own import OwnWord
from detectors.policy import Policy
from detectors.scope import Scope, hashed_tenant
from detectors.tenants import GROUPS
from detectors.verdict import DecisionWord, Evidence, GateReport, Reason, ScopedDecision, VerdictWord

# A sentence names this many parts that are not heard from; `/v1/sight` names more.
_UNSURE_NAMED_MAX = 3
_LN10: Final = math.log(10.0)
# Which of the groups will speak is not known beforehand: each needs so much more, and all together keep to one alpha.
_LOG10_GROUPS: Final = math.log10(GROUPS)
_HELD_BY_CRASHES: Final = frozenset({Reason.TOO_FEW_TENANTS, Reason.HOLD_EVIDENCE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that is known of a rollout when a decision is asked for.

    Attributes:
        evidence: the numbers a person gets to see; `log10_evidence_max` is the highest evidence that may kill: without
            whichever tenant group carries most of it.
        log10_hold_max: the highest evidence that may hold: with methods whose history is too short to kill.
        log10_hold: the same now.
        bounded: whether anything bounds the exposed share from above.
        devices: distinct devices behind the evidence in the exposed arm.
        tenants: distinct tenants (or tenant groups, where devices are silent) among them.
        trusted: one of the tenants may kill alone.
        observed_seconds: time since the push to the latest started ring began.
        gate: whether the next ring may follow; None where nobody asked.
        report: the same as a verdict carries it; None while no declared ring has begun.
        heard_share: which part of the exposed devices is heard from; None while nobody is exposed.
        own: what tenants' own devices say, each against its own controls.
        finding: what attribution says of the rollout among its rivals; None where no rival matters.
        late_seconds: how far activity lags behind crashes in the partition where it lags most.
        late_limit_seconds: how far it may.
        blind: no step comes any more.
        left_out: device partitions that lag too far to be counted.
        gapped: device partitions that lost a step and have not named every cell since.
        unsure: parts of Cordon that are not heard from, or are behind: evidence still counts, health does not.
        failed: what went wrong in a detector; empty if nothing did.
    """

    evidence: Evidence
    log10_hold_max: float = 0.0
    log10_hold: float = 0.0
    bounded: bool = True
    devices: int = 0
    tenants: int = 0
    trusted: bool = False
    observed_seconds: float = 0.0
    gate: GateAnswer | None = None
    report: GateReport | None = None
    heard_share: float | None = None
    own: Sequence[OwnWord] = ()
    finding: Finding | None = None
    late_seconds: float = 0.0
    late_limit_seconds: float = 30.0
    blind: bool = False
    left_out: tuple[int, ...] = ()
    gapped: tuple[int, ...] = ()
    unsure: tuple[str, ...] = ()
    failed: str = ""


class Decided(NamedTuple):
    """What was decided and why."""

    verdict: VerdictWord
    decision: DecisionWord
    reason: Reason
    sentence: str


def decide(found: Findings, policy: Policy) -> Decided:
    """Return verdict, decision, reason and sentence for what was found, by this policy."""
    decided = _cannot_say(found) or _harm(found, policy) or _waiting(found, policy) or _health(found)
    return decided._replace(sentence=decided.sentence + _incomplete(found))


def decide_parts(found: Findings, decided: Decided, policy: Policy) -> list[ScopedDecision]:
    """Return the tenants in which the rollout is killed while the whole is only held, by what `decide` said of it.

    A tenant is decided on by its own devices alone, so it can hurt nobody but itself. Where the whole is not held for
    its crashes (Cordon can't say, a rival is to blame, or nobody's crashes suffice), nor is any part.
    """
    held = decided.decision is DecisionWord.HOLD and decided.reason in _HELD_BY_CRASHES
    if not held or policy.tenants_least <= 1:
        return []
    needed = found.evidence.log10_needed_to_kill + _LOG10_GROUPS
    return [
        ScopedDecision(
            scope=Scope(tenant=hashed_tenant(word.tenant)),
            decision=DecisionWord.KILL,
            reason=Reason.KILL_EVIDENCE,
            sentence=(
                f"evidence {_power(word.log_evidence_max / _LN10)} >= {_power(needed)} needed to kill within one tenant"
                f": {word.crashes_exposed} exposed and {word.crashes_control} control crashes among its own devices"
            ),
            log10_evidence=word.log_evidence_max / _LN10,
        )
        for word in found.own
        if word.log_evidence_max / _LN10 >= needed and word.crashes_exposed >= policy.devices_least
    ]


def _cannot_say(found: Findings) -> Decided | None:
    if found.failed:
        text = f"a detector failed on this rollout's data: {found.failed}"
        return Decided(VerdictWord.ERROR, DecisionWord.UNKNOWN, Reason.DETECTOR_FAILED, text)
    if found.blind:
        text = "no telemetry reaches the detectors: nothing can be said, and no data is not health"
        return Decided(VerdictWord.NO_DATA, DecisionWord.UNKNOWN, Reason.NO_TELEMETRY, text)
    if found.late_seconds > found.late_limit_seconds:
        text = (
            f"activity is {found.late_seconds:.0f} s behind crashes ({found.late_limit_seconds:.0f} s allowed): "
            f"held, and not killed, until installs have caught up"
        )
        return Decided(VerdictWord.NO_DATA, DecisionWord.HOLD, Reason.ACTIVITY_LATE, text)
    if not found.bounded:
        return _unbounded(found)
    return None


def _unbounded(found: Findings) -> Decided:
    crashes = found.evidence.crashes_exposed
    text = (
        f"nothing bounds who is exposed (declare rings or pushed devices, or post `offered`): {crashes} exposed crashes"
    )
    if crashes:
        text += ", which can't be scored: held"
        return Decided(VerdictWord.NO_DATA, DecisionWord.HOLD, Reason.NO_EXPOSURE_BOUND, text)
    return Decided(VerdictWord.NO_DATA, DecisionWord.UNKNOWN, Reason.NO_EXPOSURE_BOUND, text)


def _harm(found: Findings, policy: Policy) -> Decided | None:
    evidence = found.evidence
    if found.finding is not None:
        return _among_rivals(found, found.finding, policy)
    if evidence.log10_evidence_max >= evidence.log10_needed_to_kill:
        return _enough(found, policy)
    if evidence.log10_everybody_max >= evidence.log10_needed_to_kill:
        text = (
            f"evidence {_power(evidence.log10_everybody_max)} >= {_power(evidence.log10_needed_to_kill)} needed to kill"
            f", but {_power(evidence.log10_evidence_max)} without {_group(evidence.left_out)}: held, "
            f"for one tenant's word kills nobody else's rollout. {_counts(found)}"
        )
        return Decided(VerdictWord.REGRESSED, DecisionWord.HOLD, Reason.TOO_FEW_TENANTS, text)
    return _rising(found, policy)


def _enough(found: Findings, policy: Policy) -> Decided:
    evidence = found.evidence
    text = f"evidence {_power(evidence.log10_evidence_max)} >= {_power(evidence.log10_needed_to_kill)} needed to kill"
    if found.devices < policy.devices_least:
        text += f", but {found.devices} exposed devices < {policy.devices_least} needed: held. {_counts(found)}"
        return Decided(VerdictWord.REGRESSED, DecisionWord.HOLD, Reason.TOO_FEW_DEVICES, text)
    if found.tenants < policy.tenants_least and not found.trusted:
        text += f", but {found.tenants} tenants < {policy.tenants_least} needed: held. {_counts(found)}"
        return Decided(VerdictWord.REGRESSED, DecisionWord.HOLD, Reason.TOO_FEW_TENANTS, text)
    return Decided(VerdictWord.REGRESSED, DecisionWord.KILL, Reason.KILL_EVIDENCE, f"{text}: {_counts(found)}")


def _among_rivals(found: Findings, finding: Finding, policy: Policy) -> Decided | None:
    """Decide on a rollout whose devices are on other suspects, too: by attribution alone."""
    if finding.guilt is Guilt.GUILTY:
        decided = _enough(found, policy)
        return decided._replace(sentence=f"{decided.sentence}. {finding.text}")
    if finding.held:
        text = f"held: {finding.text} {_counts(found)}"
        return Decided(VerdictWord.WATCHING, DecisionWord.HOLD, Reason.INSEPARABLE, text)
    if found.log10_hold_max >= found.evidence.log10_needed_to_hold:
        return Decided(VerdictWord.WATCHING, DecisionWord.UNKNOWN, Reason.EXPLAINED, finding.text)
    return _rising(found, policy)


def _rising(found: Findings, policy: Policy) -> Decided | None:
    evidence = found.evidence
    if found.log10_hold_max >= evidence.log10_needed_to_hold:
        text = f"evidence {_power(found.log10_hold_max)} >= {_power(evidence.log10_needed_to_hold)} needed to hold"
        return Decided(VerdictWord.WATCHING, DecisionWord.HOLD, Reason.HOLD_EVIDENCE, f"{text}: {_counts(found)}")
    if found.log10_hold >= policy.log10_to_watch:
        text = f"evidence {_power(found.log10_hold)} >= {_power(policy.log10_to_watch)}, rising: {_counts(found)}"
        return Decided(VerdictWord.WATCHING, DecisionWord.UNKNOWN, Reason.EVIDENCE_RISING, text)
    return None


def _waiting(found: Findings, policy: Policy) -> Decided | None:
    evidence = found.evidence
    if not evidence.exposed and not evidence.crashes_exposed:
        text = "no device is known to be exposed yet"
        return Decided(VerdictWord.NO_DATA, DecisionWord.UNKNOWN, Reason.NO_EXPOSURE, text)
    lacking = []
    if evidence.exposed < policy.proceed_exposed_least:
        lacking.append(f"{evidence.exposed} exposed devices < {policy.proceed_exposed_least}")
    if found.observed_seconds < policy.proceed_seconds:
        lacking.append(f"{found.observed_seconds:.0f} s since the latest ring began < {policy.proceed_seconds:.0f} s")
    if found.left_out:
        lacking.append("a part of the fleet is not heard")
    if found.gapped:
        lacking.append("steps were lost")
    if found.unsure:
        lacking.append(f"not all of Cordon is heard from ({', '.join(found.unsure[:_UNSURE_NAMED_MAX])})")
    if lacking:
        text = "no harm seen, but not enough to call it healthy: " + "; ".join(lacking)
        return Decided(VerdictWord.WATCHING, DecisionWord.UNKNOWN, Reason.NO_HARM_SEEN, text)
    return None


def _health(found: Findings) -> Decided:
    if found.gate is not None and found.gate.passed:
        text = f"{found.gate.sentence}: {_counts(found)}"
        return Decided(VerdictWord.HEALTHY, DecisionWord.PROCEED, Reason.NO_HARM_SEEN, text)
    waits = "nobody asked the gate" if found.gate is None else found.gate.sentence
    text = f"no harm seen, but not enough to call it healthy: {waits}"
    no_control = not found.evidence.at_risk_control and not found.evidence.crashes_control
    reason = Reason.NO_CONTROL if no_control else Reason.NO_HARM_SEEN
    return Decided(VerdictWord.WATCHING, DecisionWord.UNKNOWN, reason, text)


def _incomplete(found: Findings) -> str:
    text = ""
    if found.left_out:
        text += f"; without device partitions {_list(found.left_out)}, which lag too far behind"
    if found.gapped:
        text += f"; steps of device partitions {_list(found.gapped)} were lost, so they give no evidence for now"
    return text


def _counts(found: Findings) -> str:
    evidence = found.evidence
    text = f"{evidence.crashes_exposed} exposed and {evidence.crashes_control} control crashes"
    rate = next((method for method in evidence.methods if method.name == "rate_ratio"), None)
    if rate is not None and rate.expected_share is not None:
        text += f" at an expected exposed share of {rate.expected_share:.3g}"
    silence = next((method for method in evidence.methods if method.name == "silence"), None)
    if silence is not None and silence.events_exposed:
        text += f", {silence.events_exposed} exposed and {silence.events_control} control devices fell silent"
    return text


def _power(log10: float) -> str:
    return f"10^{log10:.1f}"


def _list(numbers: tuple[int, ...]) -> str:
    return ", ".join(str(number) for number in numbers)


def _group(left_out: int | None) -> str:
    return "the tenant group that carries most of it" if left_out is None else f"tenant group {left_out}"
