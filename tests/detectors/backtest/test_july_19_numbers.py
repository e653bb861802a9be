"""The two variants of 2024-07-19 against what is known of the day: 78 minutes, 109 thousand a minute of 8.5 million."""

import numpy as np
import pytest

from detectors.backtest.declare import PUSHES_MAX, declarations
from detectors.backtest.fleet import Fleet
from detectors.backtest.library import load, parse
from detectors.backtest.machines import NEVER_MS
from support.scenarios import SMALL

DEVICES = 4000
PUBLISHED_MS = 1_721_362_140_000
REVERTED_MS = 1_721_366_820_000


def test_everyone_is_reached_evenly_in_78_minutes() -> None:
    scenario = load("july-19")
    assigned = Fleet(scenario, DEVICES).shipments[0].assigned_ms
    assert scenario.rollout_ms == PUBLISHED_MS
    assert assigned.min() > PUBLISHED_MS
    assert assigned.max() == REVERTED_MS
    a_minute, _ = np.histogram(assigned, bins=78, range=(PUBLISHED_MS, REVERTED_MS))
    scaled = a_minute * (8_500_000 / DEVICES) / 1000
    assert scaled.mean() == pytest.approx(109, abs=0.5)
    assert scaled.min() > 100
    assert scaled.max() < 118


@pytest.mark.slow
def test_the_day_as_it_happened() -> None:
    fleet = Fleet(load("july-19"), DEVICES)
    crash_reports = []
    while not fleet.done:
        crash_reports += [body for body in fleet.step() if b"csagent.sys" in body and b'"bugcheck":80' in body]
        if fleet.now_ms == PUBLISHED_MS:
            assert fleet.truth().lost == 0
        if fleet.now_ms == REVERTED_MS:
            at_revert = fleet.truth()
    truth = fleet.truth()
    assert truth.pushed == pytest.approx(at_revert.pushed, abs=2)
    # 8 % have a sensor below 7.11 and 2 % of the others survive; nearly all victims are down and never heard of.
    assert truth.lost / truth.pushed == pytest.approx(0.92 * 0.98, abs=0.02)
    assert at_revert.silent > 0.9 * at_revert.lost
    assert at_revert.recovered == 0
    assert 0 < truth.recovered < 0.08 * truth.lost
    assert len(crash_reports) < 0.15 * truth.lost
    assert all(b'"offset":922861' in body for body in crash_reports)


def test_rings_get_their_share_in_their_time_and_are_declared_as_rules() -> None:
    scenario = load("july-19-rings")
    fleet = Fleet(scenario, DEVICES)
    shipment, rings = fleet.shipments[0], fleet.population.ring
    starts = [push.starts_after_seconds for push in shipment.plan.rings]
    for number, (share, start) in enumerate(zip((0.01, 0.1, 0.89), starts, strict=True)):
        members = np.flatnonzero(rings == number)
        assert len(members) / DEVICES == pytest.approx(share, rel=0.35)
        assert shipment.assigned_ms[members].min() >= PUBLISHED_MS + start * 1000
    (planned,) = declarations(fleet)
    assert planned.at_ms == PUBLISHED_MS - 60_000
    assert [ring.name for ring in planned.declaration.rings] == ["canary", "early", "broad"]
    assert planned.declaration.starts_at_ms == PUBLISHED_MS
    for ring in planned.declaration.rings:
        members = rings == [each.name for each in scenario.fleet.rings].index(ring.name)
        assert ring.starts_at_ms is not None
        halfway_ms = ring.starts_at_ms + ring.over_seconds * 500
        # The declared rule bounds what is pushed at every moment.
        assert (shipment.assigned_ms[members] <= halfway_ms).mean() <= 0.5
    assert declarations(Fleet(load("july-19"), 10)) == []


def test_lists_name_each_device_once_and_not_later_than_its_push() -> None:
    text = SMALL.replace('version = "291"', 'version = "291"\ndeclare = "lists"')
    fleet = Fleet(parse(text))
    (planned,) = declarations(fleet)
    assert len(planned.declaration.pushed) <= PUSHES_MAX
    assigned = fleet.shipments[0].assigned_ms
    from_ms = {name: push.from_ms for push in planned.declaration.pushed for name in push.devices}
    assert sum(len(push.devices) for push in planned.declaration.pushed) == len(from_ms) == 300
    for device in np.flatnonzero(assigned < NEVER_MS).tolist():
        assert from_ms[fleet.wording.device_name(device)] <= assigned[device]
    assert all(name.endswith("." + push.tenant) for push in planned.declaration.pushed for name in push.devices)
