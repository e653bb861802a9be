"""Advice on a declared rollout: each ring's pace, loss and earliest successor, by policy.

The gateway has it by way of `ingest.planning.Planner`, `cordon plan` calls it; the arithmetic is `soak_push.py` and
`gate_cell.py`. The invariant: advice is a pure function of the declaration and the policy, and changes neither.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Final

import msgspec

from detectors.gate_cell import CellGate, HarmBound
from detectors.policy import Policies, Policy
from detectors.soak_policy import watches
from detectors.soak_push import Push, PushHarm, Stopped, per_second_max, stopped
from detectors.soak_question import Watch
from ingest.planning import Advice, Pace, RingAdvice
from ingest.rollouts import Ring, Rollout

# Over so many tenants crashes and device-days are taken to be spread.
TENANTS: Final = 10
_MINUTE: Final = 60.0
_DAY: Final = 86_400.0

_per_second_max = functools.lru_cache(maxsize=1024)(per_second_max)


class PolicyPlanner:
    """Works out advice by the policy of the rollout's product.

    A push that is held stands still, so the loss is that until a hold; a kill comes later and is not waited for.
    """

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    def advise(self, rollout: Rollout) -> Advice:
        """Return what is to be said of a declared rollout."""
        policy = self._policies.for_product(rollout.vendor, rollout.product)
        terms = policy.planning
        rings = [_ring(ring, rollout.ring_devices.get(ring.name), policy) for ring in rollout.rings]
        _warn_of_successors(rollout.rings, rings)
        if rollout.pushed_devices:
            rings.append(_listed(rollout, policy))
        return Advice(
            rollout=rollout.rollout,
            crash_probability=terms.crash_probability,
            loss_max=terms.loss_max,
            certainty=terms.certainty,
            devices_any=math.floor(terms.loss_max / terms.crash_probability),
            rings=rings,
            policy=policy.digest,
        )


def _harm(policy: Policy) -> PushHarm:
    terms = policy.planning
    return PushHarm(
        probability=terms.crash_probability,
        reported=terms.reported,
        crash_seconds=terms.crash_seconds,
        stop_seconds=terms.stop_seconds,
        certain=terms.certainty,
    )


def _hold(policy: Policy) -> Watch:
    return watches(policy, TENANTS)["hold"]


def _ring(ring: Ring, devices: int | None, policy: Policy) -> RingAdvice:
    if devices is None:
        said = f"ring_devices does not say how many devices {ring.name} has: say it to have the push rate worked out"
        return RingAdvice(ring=ring.name, pace=Pace.UNKNOWN, warnings=[said])
    push = Push(devices=devices, share=ring.share)
    asked = push.pushed / ring.over_seconds if ring.over_seconds > 0 else math.inf
    harm, watch, loss_max = _harm(policy), _hold(policy), policy.planning.loss_max
    fastest = _per_second_max(push, harm, watch, loss_max)
    found = stopped(msgspec.structs.replace(push, per_second=asked), harm, watch)
    advice = RingAdvice(
        ring=ring.name,
        devices=round(push.pushed),
        pace=Pace.ANY if math.isinf(fastest) else Pace.LIMITED if fastest > 0 else Pace.NONE,
        per_minute=None if math.isinf(asked) else round(asked * _MINUTE, 2),
        crashes=found.crashes,
        stopped_seconds=None if found.seconds is None else math.ceil(found.seconds),
        lost=round(found.lost, 1),
        gate_seconds=_gate_seconds(ring, push, policy),
    )
    if advice.pace is Pace.LIMITED:
        advice.per_minute_max = math.floor(fastest * _MINUTE * 100.0) / 100.0
        advice.over_seconds_least = math.ceil(push.pushed / fastest)
    advice.warnings = _warnings(ring, advice, found, policy)
    return advice


def _warnings(ring: Ring, advice: RingAdvice, found: Stopped, policy: Policy) -> list[str]:
    loss_max, warnings = policy.planning.loss_max, []
    if found.lost > loss_max:
        text = f"{ring.name}: a harmful update crashes {found.lost:.0f} devices > {loss_max} "
        text += "before the push stands still" if found.crashes else "and is not decided on while it is pushed"
        if advice.pace is Pace.LIMITED:
            over = advice.over_seconds_least
            text += f": push at most {advice.per_minute_max:g} devices a minute (over_seconds {over:.0f})"
        else:
            text += ": no speed is slow enough, so make the ring smaller"
        warnings.append(text)
    if advice.gate_seconds is None:
        warnings.append(
            f"{ring.name}: {advice.devices} devices < proceed_exposed_least {policy.proceed_exposed_least}: "
            f"this ring alone opens no gate"
        )
    return warnings


def _gate_seconds(ring: Ring, push: Push, policy: Policy) -> float | None:
    """Return when the next ring may follow at the earliest, from the beginning of this one, if nobody crashes."""
    if push.pushed < policy.proceed_exposed_least:
        return None
    days = _quiet_days(policy) / push.pushed
    quiet = days * _DAY + ring.over_seconds / 2.0
    return math.ceil(max(policy.proceed_seconds, policy.gate.latency_hours * 3600.0, quiet))


def _quiet_days(policy: Policy) -> float:
    terms = policy.gate
    bound = HarmBound(ratio=terms.ratio, excess_per_device_day=terms.excess_per_device_day)
    days = CellGate(bound).days_needed(-math.log(terms.alpha), leave_one_out=False)
    assert days is not None
    # Any one tenant is left out, so that only the others' time counts.
    return days if policy.tenants_least <= 1 else days * TENANTS / (TENANTS - 1)


def _warn_of_successors(rings: Sequence[Ring], advised: Sequence[RingAdvice]) -> None:
    """Warn where a ring begins before the one before it can have been decided on, or passed the gate."""
    started = [(ring.starts_at_ms, ring, advice) for ring, advice in zip(rings, advised, strict=True)]
    told = sorted((one for one in started if one[0] is not None), key=lambda one: one[0] or 0)
    for (begun_ms, _, advice), (next_ms, successor, _) in itertools.pairwise(told):
        assert begun_ms is not None
        assert next_ms is not None
        ahead = (next_ms - begun_ms) / 1000.0
        if advice.stopped_seconds is not None and ahead < advice.stopped_seconds:
            advice.warnings.append(
                f"{successor.name} begins {ahead:.0f} s after {advice.ring}, in which harm stops the push after "
                f"{advice.stopped_seconds:.0f} s: begin it later"
            )
        elif advice.gate_seconds is not None and ahead < advice.gate_seconds:
            advice.warnings.append(
                f"{successor.name} begins {ahead:.0f} s after {advice.ring}, whose gate opens after "
                f"{advice.gate_seconds:.0f} s at the earliest: begin it later, or when the gate is open"
            )


def _listed(rollout: Rollout, policy: Policy) -> RingAdvice:
    """Return what is to be said of devices that are pushed to by list: each list gets the update at once."""
    terms, devices = policy.planning, rollout.pushed_devices
    most, apart = math.floor(terms.loss_max / terms.crash_probability), terms.crash_seconds + terms.stop_seconds
    lost = devices * terms.crash_probability
    fits = lost <= terms.loss_max
    advice = RingAdvice(ring="", devices=devices, pace=Pace.ANY if fits else Pace.NONE, lost=lost)
    if not fits:
        advice.warnings = [
            f"the lists name {devices} devices, of which a harmful update crashes {lost:.0f} > {terms.loss_max} if "
            f"they are pushed to at once: push lists of {most} at most, {apart:.0f} s and more apart"
        ]
    return advice
