"""A vendor's rollouts as they stand, from the views in memory, in closed words and steps of a ladder. Pure.

Invariant: nothing free that a person or a device wrote goes in, no part of a rollout (one may be a single tenant), and
no number below the least; a rollout that nobody declared is told of only once enough tenants crash on it, for its
version may be known to one of them alone.
"""

import math
from typing import Final

from msgspec.structs import replace

from detectors.recovery import Recovery
from detectors.verdict import Evidence
from signals.delivery.joined import Facts
from signals.delivery.views import Views
from signals.events import Switch
from signals.pagers.content import started_rings
from signals.vendors.anonymity import Terms, step_of
from signals.vendors.health import OTHER
from signals.vendors.owning import Owning
from signals.vendors.words import VendorEvidence, VendorRecovery, VendorRollout, VendorStack

ROLLOUTS_MAX: Final = 200
_LOOKED_AT_MAX: Final = 50_000


def rollouts_of(views: Views, owning: Owning, terms: Terms, now_ms: int) -> list[VendorRollout]:
    """Return the rollouts that are theirs, sorted by id; of more than `ROLLOUTS_MAX`, those that are stopped first."""
    found = []
    for name in views.known(_LOOKED_AT_MAX):
        facts = views.facts(name)
        if facts is not None and is_told(facts, owning, terms):
            found.append(rollout_of(facts, owning, terms, now_ms))
    found.sort(key=lambda one: (one.state not in ("killed", "held"), one.rollout))
    return sorted(found[:ROLLOUTS_MAX], key=lambda one: one.rollout)


def is_told(facts: Facts, owning: Owning, terms: Terms) -> bool:
    """Tell whether a rollout is theirs and may be named."""
    named = facts.named
    if named is None or not owning.owns(named.vendor, named.product):
        return False
    declared = facts.declared is not None and bool(facts.declared.declared_by)
    return declared or any(_enough(evidence, terms) for evidence in _evidences(facts))


def rollout_of(facts: Facts, asking: Owning, terms: Terms, now_ms: int) -> VendorRollout:
    """Return one rollout as it is told to who asks, whose own it need not be."""
    named, verdict = facts.named, facts.verdict
    assert named is not None
    told = VendorRollout(
        rollout=facts.rollout,
        vendor=named.vendor,
        product=named.product,
        version=named.version,
        state=state_of(facts.switch),
        rings=list(started_rings(facts.declared, max(now_ms, verdict.at_ms if verdict is not None else 0))),
    )
    if verdict is None:
        return told
    return replace(
        told,
        decision=verdict.decision.value,
        verdict=verdict.verdict.value,
        reason=verdict.reason.value,
        at_ms=verdict.at_ms,
        evidence=evidence_of(verdict.evidence, asking, terms),
        recovery=recovery_of(verdict.recovery, terms),
    )


def state_of(switch: Switch | None) -> str:
    """Return where the whole rollout stands; empty where nothing was said of it."""
    if switch is None:
        return ""
    if switch.whole is not None:
        return switch.whole.value
    return switch.state.value if switch.scope.whole else ""


def evidence_of(evidence: Evidence, asking: Owning, terms: Terms) -> VendorEvidence | None:
    """Return the numbers in steps; None while they are of few devices or few tenants."""
    crashed = step_of(evidence.crashes_exposed, terms)
    if crashed is None or not _enough(evidence, terms):
        return None
    ratio = evidence.rate_ratio
    return VendorEvidence(
        crashed_at_least=crashed,
        control_crashed_at_least=step_of(evidence.crashes_control, terms),
        exposed_at_least=step_of(evidence.exposed, terms),
        rate_ratio=float(f"{ratio:.1g}") if ratio is not None and math.isfinite(ratio) else None,
        log10_evidence=math.floor(evidence.log10_evidence),
        log10_needed_to_kill=evidence.log10_needed_to_kill,
        stacks=stacks_of(evidence, asking, terms),
    )


def stacks_of(evidence: Evidence, asking: Owning, terms: Terms) -> list[VendorStack]:
    """Return where the modules of who asks crash, of enough devices and tenants; others' modules are not named."""
    told = []
    for one in evidence.stacks:
        crashed = step_of(one.devices, terms)
        if crashed is None or one.tenants < terms.tenants or not asking.owns_module(one.signature.partition("|")[0]):
            continue
        frames = [frame if asking.owns_module(frame.rpartition("+")[0]) else OTHER for frame in one.frames]
        told.append(VendorStack(signature=one.signature, frames=frames, crashed_at_least=crashed))
    return told


def recovery_of(recovery: Recovery | None, terms: Terms) -> VendorRecovery | None:
    """Return who comes back, in steps; None where nothing of it may be told."""
    if recovery is None:
        return None
    told = []
    for name in ("silent", "looping", "recovered"):
        tenants = {row.tenant for row in recovery.rows if getattr(row, name)}
        told.append(step_of(getattr(recovery, name), terms) if len(tenants) >= terms.tenants else None)
    silent, looping, recovered = told
    if (silent, looping, recovered) == (None, None, None):
        return None
    return VendorRecovery(silent_at_least=silent, looping_at_least=looping, recovered_at_least=recovered)


def _evidences(facts: Facts) -> list[Evidence]:
    found = [facts.verdict.evidence] if facts.verdict is not None else []
    if facts.switch is not None and facts.switch.evidence is not None:
        found.append(facts.switch.evidence)
    return found


def _enough(evidence: Evidence, terms: Terms) -> bool:
    return evidence.crashes_exposed >= terms.devices and evidence.tenants >= terms.tenants
