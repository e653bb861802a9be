"""Simulated rollouts: healthy ones raise no alarm, harm does, and what is told of them is right."""

import math

import msgspec
import numpy as np
import pytest

from deploy.bench.detectors_healthy import BASES, HOURS, Shake, at_risk, crashes_of, fleet, strata_at
from deploy.bench.detectors_validity import CONFOUNDERS, TOLERATED, highest, most_alarms, one_rollout
from detectors.policy import load
from detectors.tenants import NOBODY


def test_harm_is_found() -> None:
    """The validity run can fail: with harm of ratio 20 most rollouts are killed."""
    found = highest(Shake(ratio=20.0), 12, 0, workers=1)
    assert sum(one.kill >= math.log(1e3) for one in found) >= 8


def test_a_seed_gives_the_same_rollout() -> None:
    assert one_rollout(5, TOLERATED, load().default) == one_rollout(5, TOLERATED, load().default)


def test_shares_are_those_of_the_devices_at_risk() -> None:
    """A crash's share is what a plain count of devices gives."""
    rng = np.random.default_rng(8)
    world = fleet(rng, Shake())
    crashes, arrives = crashes_of(rng, world, Shake(), 0.0)
    assert bool((np.diff(arrives) >= 0).all())
    assert arrives[-1] <= HOURS
    by_share = sorted(crashes.shares.known.tolist())
    expected = []
    for place in np.flatnonzero(world.crash_at <= HOURS).tolist():
        at = np.array([world.crash_at[place]])
        known, control, bands, mine = at_risk(world, int(world.base[place]), at)
        same = bands[0] == bands[0, np.searchsorted(mine, place)]
        expected.append(float((known[0] * same).sum() / ((known[0] + control[0]) * same).sum()))
    assert set(np.round(by_share, 9)) <= set(np.round(expected, 9))


def test_crashes_in_a_healthy_fleet_fall_on_the_arms_as_the_shares_say() -> None:
    exposed, told, variance = 0, 0.0, 0.0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        crashes, _ = crashes_of(rng, fleet(rng, Shake()), Shake(), 0.0)
        share = crashes.shares.upper[:, NOBODY]
        exposed += int(crashes.exposed.sum())
        told, variance = told + float(share.sum()), variance + float((share * (1 - share)).sum())
    assert abs(exposed - told) < 4 * math.sqrt(variance)


def test_strata_are_whole() -> None:
    rng = np.random.default_rng(2)
    world = fleet(rng, Shake())
    for one in strata_at(rng, world, Shake(), 20.0):
        assert one.silent_exposed <= one.exposed
        assert one.silent_control <= one.control
        left = np.array([one.exposed, one.control, one.silent_exposed, one.silent_control])
        assert (sum((left - np.array(counts)) for counts in one.without.values()) == left).all()


@pytest.mark.parametrize("name", CONFOUNDERS)
def test_a_confounded_fleet_can_be_drawn(name: str) -> None:
    found = highest(msgspec.structs.replace(CONFOUNDERS[name], crashes=30.0), 2, 1, workers=1)
    assert all(math.isfinite(value) and value >= 0 for one in found for value in one)


def test_alarms_allowed_are_those_of_the_binomial() -> None:
    assert most_alarms(20_000, 1e-6) <= 2
    assert 200 < most_alarms(20_000, 1e-2) < 260
    assert len(BASES) == 12
