"""Crashes read ahead of the installs behind them forge evidence: the chain from grouping to the switch waits instead.

In-process, unlike the other system tests: the live gateway ticks into both topics, so lateness can't be had over HTTP.
"""

import random
from collections import deque
from dataclasses import dataclass

from detectors.verdict import DecisionWord, Reason, VerdictWord
from ingest.events import Report
from ingest.log.interface import Entry
from ingest.rollouts import Bound
from signals.events import SwitchState
from support.system_late import Chain
from support.world import NEW, T0

SECOND = 1000
STEP_MS = 5 * SECOND
LATE_MS = 600 * SECOND
STEPS = 120
DEVICES = 600
# Enough to let a healthy rollout proceed within the test's hour, instead of within days.
SOON = {
    "proceed_exposed_least": 300,
    "proceed_seconds": 900,
    "gate": {"excess_per_device_day": 10.0, "boots_least": 0, "wakes_least": 0, "latency_hours": 0},
}


@dataclass
class Plan:
    """A rollout to nine tenths of the fleet in ten minutes, and who crashes meanwhile.

    Attributes:
        crashes: how many devices crash.
        bad: only devices that have the update crash; otherwise it strikes anybody.
        late_ms: how far activity lies behind crashes.
    """

    crashes: int
    bad: bool = False
    late_ms: int = LATE_MS


def struck(plan: Plan, offered_at: dict[int, int], rng: random.Random) -> dict[int, int]:
    """Return who crashes at which step, evenly over the ten minutes."""
    found: dict[int, int] = {}
    for step in sorted(rng.sample(range(10, STEPS), plan.crashes)):
        able = [
            d for d in range(DEVICES) if d not in found.values() and (not plan.bad or offered_at.get(d, STEPS) < step)
        ]
        found[step] = rng.choice(able)
    return found


def run(chain: Chain, plan: Plan, seed: int = 7) -> list[DecisionWord]:
    """Play the plan; return the verdict's decision at every step while activity is late."""
    rng = random.Random(seed)
    offers = rng.sample(range(DEVICES), DEVICES * 9 // 10)
    offered_at = {device: place * STEPS // len(offers) for place, device in enumerate(offers)}
    crashes = struck(plan, offered_at, rng)
    waiting: deque[tuple[int, list[Entry]]] = deque()
    decisions = []
    for step in range(STEPS):
        at_ms = T0 + 10 * SECOND + step * STEP_MS
        reports: list[Report] = [chain.world.offered(device, at_ms) for device in offers if offered_at[device] == step]
        reports += [chain.world.check_in(device, at_ms, None) for device in rng.sample(range(DEVICES), 20)]
        activity = [*chain.world.batches("activity", reports, at_ms), *chain.world.ticks(at_ms, ["activity"])]
        waiting.append((at_ms + plan.late_ms, activity))
        chain.clock.drive_to(at_ms)
        if step in crashes:
            device = crashes[step]
            version = NEW if offered_at.get(device, STEPS) < step else None
            chain.append(chain.world.batches("crashes", [chain.world.bsod(device, at_ms - SECOND, version)], at_ms))
        chain.append(chain.world.ticks(at_ms, ["crashes"]))
        while waiting and waiting[0][0] <= at_ms:
            chain.append(waiting.popleft()[1])
        decisions.append(chain.verdict().decision)
    for _, entries in waiting:
        chain.append(entries)
    return decisions


def fleet(chain: Chain) -> None:
    """Let all devices say that they have the old version, in time."""
    chain.append(chain.world.batches("activity", [chain.world.check_in(d, T0) for d in range(DEVICES)], T0))
    chain.append(chain.world.ticks(T0 + SECOND))


def live_on(chain: Chain, minutes: int) -> None:
    """Go on in good health, with activity in time."""
    start = chain.clock.now_ms()
    for at_ms in range(start + STEP_MS, start + minutes * 60 * SECOND, 4 * STEP_MS):
        chain.clock.drive_to(at_ms)
        alive = [chain.world.check_in(device, at_ms, None) for device in range(DEVICES)]
        chain.append(chain.world.batches("activity", alive, at_ms) if at_ms % (60 * SECOND) < 4 * STEP_MS else [])
        chain.append(chain.world.ticks(at_ms))


def test_a_healthy_rollout_with_activity_late_is_held_as_blind_and_never_killed() -> None:
    """Crashes that name the new version arrive ten minutes before the offers that tell how many have it."""
    chain = Chain(SOON)
    fleet(chain)
    chain.declare(Bound.OFFERED)
    decisions = run(chain, Plan(crashes=40))
    # 30 s of lateness are allowed; from then on it is a hold, at each step, and the switch says why.
    assert set(decisions[8:]) == {DecisionWord.HOLD}
    first = next(switch for switch in chain.switches() if switch.state is SwitchState.HELD)
    assert (first.reason, first.cause) == (Reason.ACTIVITY_LATE, "detector")

    caught_up = chain.verdict()
    assert caught_up.decision is not DecisionWord.HOLD
    assert caught_up.reason is not Reason.ACTIVITY_LATE
    assert caught_up.evidence.crashes_exposed + caught_up.evidence.crashes_control == 40
    assert caught_up.evidence.log10_evidence_max < caught_up.evidence.log10_needed_to_hold


def test_the_hold_is_lifted_once_health_is_seen() -> None:
    """Activity that has caught up lifts the verdict's hold at once, and the switch's as soon as health is shown."""
    chain = Chain(SOON)
    fleet(chain)
    chain.declare(Bound.OFFERED)
    run(chain, Plan(crashes=10))
    assert chain.switches()[-1].state is SwitchState.HELD
    live_on(chain, 40)
    assert chain.verdict().verdict is VerdictWord.HEALTHY
    states = [switch.state for switch in chain.switches()]
    assert states[-1] is SwitchState.OBSERVING
    assert SwitchState.KILLED not in states


def test_the_same_rollout_with_activity_in_time_is_not_even_held() -> None:
    """What held it was the lateness and nothing else."""
    chain = Chain(SOON)
    fleet(chain)
    chain.declare(Bound.OFFERED)
    decisions = run(chain, Plan(crashes=40, late_ms=0))
    assert DecisionWord.HOLD not in decisions
    assert not [switch for switch in chain.switches() if switch.state is SwitchState.HELD]


def test_a_bad_rollout_with_activity_late_is_killed_when_it_catches_up() -> None:
    """Lateness puts evidence off and loses none of it."""
    chain = Chain()
    fleet(chain)
    chain.declare(Bound.OFFERED)
    decisions = run(chain, Plan(crashes=100, bad=True))
    assert DecisionWord.KILL not in decisions
    assert set(decisions[8:]) == {DecisionWord.HOLD}
    assert chain.verdict().evidence.crashes_exposed == 100
    assert chain.switches()[-1].state is SwitchState.KILLED


def test_victims_that_say_nothing_are_exposed_by_the_declared_push() -> None:
    """Neither `offered` nor `installed` nor a version in the crash report: the push list alone is enough to kill."""
    chain = Chain()
    fleet(chain)
    pushed = range(0, DEVICES, 9)
    chain.declare(Bound.DECLARED, pushed=pushed, from_ms=T0 + 20 * SECOND)
    killed_at = None
    for number, device in enumerate(pushed):
        at_ms = T0 + 30 * SECOND + number * SECOND
        chain.clock.drive_to(at_ms)
        chain.append(chain.world.batches("crashes", [chain.world.bsod(device, at_ms - 500)], at_ms))
        chain.append(chain.world.ticks(at_ms))
        if chain.switches() and chain.switches()[-1].state is SwitchState.KILLED:
            killed_at = number + 1
            break
    assert killed_at is not None
    # Twenty without a lying tenant in mind; leaving any one out costs three more.
    assert killed_at <= 24
    assert chain.verdict().evidence.crashes_control == 0
    assert chain.verdict().decision is DecisionWord.KILL
