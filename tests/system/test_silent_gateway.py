"""One of two gateways falls silent in a rollout while the other goes on: what is seen of half a fleet is no evidence.

Half of the devices speak through each. The silent one keeps what it takes in its spool, and brings it three minutes
later, crashes first. Passing its ticks meanwhile killed healthy rollouts: its devices stayed at risk on their old
version, and their crashes and installs went unseen.
"""

import random

import pytest

from detectors.verdict import DecisionWord
from ingest.events import Report
from ingest.grouping.ticks import SILENT_MS
from ingest.log.interface import Entry
from ingest.rollouts import Bound
from support.system_late import Chain
from support.world import NEW, T0, World

SECOND = 1000
DEVICES = 600
START_MS = T0 + 10 * SECOND
AWAY_FROM_MS = START_MS + 4 * SECOND
AWAY_TO_MS = AWAY_FROM_MS + 180 * SECOND
END_MS = AWAY_TO_MS + 40 * SECOND
Flushes = list[tuple[int, list[Entry], list[Entry]]]


def flushes(world: World, devices: range, seed: int, *, bad: bool) -> Flushes:
    """Return a gateway's flushes, by time: what goes to the crash topic, and the rest; ticks among both."""
    rng = random.Random(seed)
    offers = {d: START_MS + rng.randrange(240 * SECOND) for d in rng.sample(devices, len(devices) * 9 // 10)}
    crashes = {d: START_MS + rng.randrange(240 * SECOND) for d in rng.sample(devices, len(devices) // 8)}
    if bad:
        crashes |= {d: at_ms + rng.randrange(2000, 9000) for d, at_ms in offers.items() if rng.random() < 0.3}
    found = []
    for at_ms in range(START_MS, END_MS, SECOND):
        since_ms = at_ms - SECOND
        activity: list[Report] = [world.offered(d, offers[d]) for d in devices if since_ms <= offers.get(d, 0) < at_ms]
        bsods: list[Report] = [
            world.bsod(d, crashes[d], NEW if offers.get(d, END_MS) < crashes[d] else None)
            for d in devices
            if since_ms <= crashes.get(d, 0) < at_ms
        ]
        found.append(
            (
                at_ms,
                [*world.batches("crashes", bsods, at_ms), *world.ticks(at_ms, ["crashes"])],
                [*world.batches("activity", activity, at_ms), *world.ticks(at_ms, ["activity"])],
            )
        )
    return found


def play(seed: int, *, bad: bool, away_to_ms: int = AWAY_TO_MS) -> tuple[list[DecisionWord], Chain]:
    """Let the first gateway be away; return the decisions, one a second."""
    chain = Chain()
    other = World(chain.topics, "gateway-2")
    chain.append(chain.world.batches("activity", [chain.world.check_in(d, T0) for d in range(DEVICES)], T0))
    for world in (chain.world, other):
        chain.append(world.ticks(T0 + SECOND))
    chain.declare(Bound.OFFERED)
    chain.append(other.ticks(T0 + 2 * SECOND))
    half = DEVICES // 2
    kept: tuple[list[Entry], list[Entry]] = ([], [])
    said = []
    here = flushes(chain.world, range(half), seed, bad=bad)
    there = flushes(other, range(half, DEVICES), seed + 100, bad=bad)
    for (at_ms, crashes, rest), (_, *other_flush) in zip(here, there, strict=True):
        chain.clock.drive_to(at_ms)
        if AWAY_FROM_MS <= at_ms < away_to_ms:
            kept[0].extend(crashes)
            kept[1].extend(rest)
        else:
            for held in kept:
                chain.append(held)
                held.clear()
            chain.append([*crashes, *rest])
        for entries in other_flush:
            chain.append(entries)
        said.append(chain.verdict().decision)
    return said, chain


@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_rollout_is_not_killed_by_half_a_view(seed: int) -> None:
    said, chain = play(seed, bad=False)
    assert DecisionWord.KILL not in said
    calm, undisturbed = play(seed, bad=False, away_to_ms=0)
    assert DecisionWord.KILL not in calm
    seen, all_seen = chain.verdict().evidence, undisturbed.verdict().evidence
    assert (seen.crashes_exposed, seen.crashes_control) == (all_seen.crashes_exposed, all_seen.crashes_control)
    # The other gateway's offers are known a little before their time, which overstates the exposed share, and reports
    # that come late weigh less while no history says how late they usually are; neither forges evidence.
    assert all_seen.log10_evidence_max - 1.5 <= seen.log10_evidence_max <= all_seen.log10_evidence_max + 0.5
    assert seen.log10_evidence_max < seen.log10_needed_to_hold


@pytest.mark.parametrize("seed", range(2))
def test_a_bad_one_is_killed_once_the_silent_gateway_is_back(seed: int) -> None:
    said, _ = play(seed, bad=True)
    back = (AWAY_TO_MS - START_MS) // SECOND
    assert DecisionWord.KILL not in said[6:back], "half a view is no evidence, either way"
    assert DecisionWord.KILL in said[back:]


def test_a_gateway_that_never_comes_back_is_passed_once_its_devices_were_long_unheard() -> None:
    chain = Chain()
    other = World(chain.topics, "gateway-2")
    for world in (chain.world, other):
        chain.append(world.ticks(T0 + SECOND))
    for at_ms in (T0 + 60 * SECOND, T0 + SILENT_MS):
        chain.append(other.ticks(at_ms))
        assert chain.watermark_ms == T0 + SECOND
    chain.append(other.ticks(T0 + SECOND + SILENT_MS + 1))
    assert chain.watermark_ms == T0 + SECOND + SILENT_MS + 1
