"""Who gets an update when: the rollout system's order, and what the devices make of it."""

from dataclasses import dataclass

import numpy as np

from detectors.backtest.cohort.people import Chunk, People
from detectors.backtest.cohort.uptime import NEVER, Lookup, next_check_in
from detectors.backtest.draws import Bools, Draws, Ints, Purpose
from detectors.backtest.population import NOT_FOUND
from detectors.backtest.scenario import EVERYONE, Incident, Scenario, UpdatePlan

# How often a device that was missed is tried again at its next start.
_TRIES = 3


def begins_ms(scenario: Scenario, plan: UpdatePlan) -> int:
    """Return the moment that an update's times count from."""
    return scenario.rollout_ms - round(plan.begins_before_seconds * 1000)


def product_of(scenario: Scenario, plan: UpdatePlan) -> int:
    """Return the number of the product that an update is for."""
    return [(one.vendor, one.product) for one in scenario.products].index((plan.vendor, plan.product))


def assign(scenario: Scenario, people: People) -> list[Ints]:
    """Return by update when the rollout system gets to each device, `NEVER` where it doesn't; shapes (devices,)."""
    draws = Draws(scenario.seed)
    assigned: list[Ints] = []
    names = [plan.name for plan in scenario.updates]
    for number, plan in enumerate(scenario.updates):
        times = _by_ring(scenario, people, plan, number, draws)
        if plan.rides_on:
            other = assigned[names.index(plan.rides_on)]
            rides = people.has[product_of(scenario, plan)] & (other < NEVER)
            times[rides] = other[rides]
        assigned.append(times)
    _lie(scenario, people, assigned)
    return assigned


def _by_ring(scenario: Scenario, people: People, plan: UpdatePlan, number: int, draws: Draws) -> Ints:
    found = people.has[product_of(scenario, plan)] & (people.invented < 0)
    rings = [ring.name for ring in scenario.fleet.rings]
    assigned = np.full(people.devices, NEVER, dtype=np.int64)
    for push in plan.rings:
        eligible = found if push.name == EVERYONE else found & (people.ring == rings.index(push.name))
        members = np.flatnonzero(eligible)
        rank = draws.uniform(Purpose.PUSH_ORDER, people.site_key[members] if plan.by_site else members, number)
        chosen = members[np.argsort(rank, kind="stable")[: round(push.share * len(members))]]
        # Evenly by rank, as `Shipment` does: a declared rule's bound then holds at every moment.
        part = (np.arange(len(chosen)) + 1) / max(1, len(chosen))
        starts_ms = begins_ms(scenario, plan) + round(push.starts_after_seconds * 1000)
        assigned[chosen] = starts_ms + np.rint(part * push.over_seconds * 1000).astype(np.int64)
    return assigned


def lies_ms(scenario: Scenario, liar: int, count: int) -> Ints:
    """Return when the invented devices of a liar do what they are made up for, shape (count,)."""
    plan = scenario.liars[liar]
    part = (np.arange(count) + 1) / count
    start_ms = scenario.rollout_ms + round(plan.starts_after_seconds * 1000)
    return start_ms + np.rint(part * plan.over_seconds * 1000).astype(np.int64)


def _lie(scenario: Scenario, people: People, assigned: list[Ints]) -> None:
    names = [plan.name for plan in scenario.updates]
    for number, liar in enumerate(scenario.liars):
        if liar.tells in ("crashes", "check_ins"):
            mine = np.flatnonzero(people.invented == number)
            assigned[names.index(liar.update) if liar.update else 0][mine] = lies_ms(scenario, number, len(mine))


@dataclass(frozen=True, slots=True)
class Taken:
    """What the devices of a chunk make of one update; arrays of shape (n,), `NEVER` for what doesn't happen.

    Attributes:
        offered_ms: when the device is about to activate it.
        loads_ms: when it has.
        harmed_by: whether the incident's conditions hold for it.
    """

    offered_ms: Ints
    loads_ms: Ints
    harmed_by: Bools


def take(scenario: Scenario, number: int, chunk: Chunk, assigned_ms: Ints, lookup: Lookup) -> Ints:
    """Return when each device of the chunk takes update `number`: at once if it runs, else at a later check-in."""
    plan = scenario.updates[number]
    until = NEVER
    if plan.reverted_after_seconds is not None:
        until = begins_ms(scenario, plan) + round(plan.reverted_after_seconds * 1000)
    taken = np.full(chunk.devices, NEVER, dtype=np.int64)
    waiting = np.flatnonzero(assigned_ms < NEVER)
    from_ms = assigned_ms[waiting]
    at_once = plan.delivery == "push"
    for _ in range(_TRIES):
        place = lookup.next(waiting, from_ms)
        there = place >= 0
        waiting, from_ms, place = waiting[there], from_ms[there], place[there]
        runs = lookup.spans.start_ms[place] <= from_ms
        begin = np.maximum(from_ms, lookup.spans.start_ms[place])
        check_in = next_check_in(chunk.phase_ms[waiting], chunk.every_ms, begin)
        time = np.where(runs & at_once, from_ms, check_in)
        end = lookup.spans.end_ms[place]
        fits = time < end
        taken[waiting[fits]] = time[fits]
        waiting, from_ms, at_once = waiting[~fits], end[~fits], False
        if len(waiting) == 0:
            break
    taken[taken >= until] = NEVER
    return taken


def conditions(scenario: Scenario, incident: Incident | None, people: People, chunk: Chunk) -> Bools:
    """Tell for which devices of the chunk the incident's conditions hold; shape (n,)."""
    everyone = chunk.invented < 0
    if incident is None:
        return np.zeros(chunk.devices, dtype=np.bool_)
    if incident.only_on is not None:
        everyone = people.match(incident.only_on, slice(chunk.first, chunk.first + chunk.devices))
    if incident.only_with is None:
        return everyone
    keys = [(product.vendor, product.product) for product in scenario.products]
    product = keys.index((incident.only_with.vendor, incident.only_with.product))
    wanted = [version.name in incident.only_with.versions for version in scenario.products[product].versions]
    # The last place stands for devices without the product: `NOT_FOUND` is -1.
    table = np.array([*wanted, False])
    assert NOT_FOUND == -1
    held: Bools = everyone & table[chunk.versions[product]]
    return held
