"""The simulated fleet: same bytes for the same seed, nothing out of thin air, and a stop that stops."""

import hashlib
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.backtest.fleet import Fleet
from ingest.events import BootLoop, Bsod, CheckIn, Installed, Offered, Report
from support.scenarios import SMALL, decoded, run_through, small

UPDATE = ("acme", "content", "291")
seeds = st.integers(0, 2**32 - 1)
QUIET = SMALL.replace("delayed_share = 0.05", "delayed_share = 0").replace("duplicated_share = 0.02", "")


def _digest(bodies: list[bytes]) -> str:
    return hashlib.sha256(b"\n".join(bodies)).hexdigest()


def _index(report: Report) -> int:
    return int(report.device.removeprefix("host-").partition(".")[0])


def test_one_seed_gives_the_same_bytes_and_another_gives_others() -> None:
    first, again, other = (run_through(Fleet(small(seed=seed))) for seed in (7, 7, 8))
    assert _digest(first) == _digest(again)
    assert _digest(first) != _digest(other)


@settings(max_examples=8, deadline=None)
@given(seed=seeds, reboots=st.booleans(), delivery=st.sampled_from(["push", "check_in"]))
def test_every_report_is_valid_and_the_dead_are_silent(seed: int, reboots: bool, delivery: str) -> None:
    changed = f'version = "291"\nreboots = {str(reboots).lower()}\ndelivery = "{delivery}"'
    text = SMALL.replace('version = "291"', changed)
    fleet = Fleet(small(text, seed=seed))
    bodies = run_through(fleet)
    crashed = fleet.shipments[0].crashed
    recovered = fleet.shipments[0].recovered
    assert crashed.sum() > 50
    numbers: dict[str, dict[int, bytes]] = defaultdict(dict)
    last_seen: dict[int, int] = {}
    for report, body in zip(decoded(bodies), bodies, strict=True):
        assert report.boot_at_ms <= report.at_ms
        # A duplicate is the same report; no two different ones share a number.
        assert numbers[report.device].setdefault(report.seq, body) == body
        index = _index(report)
        assert report.device == fleet.wording.device_name(index)
        assert not fleet.population.unheard[index]
        if isinstance(report, Installed):
            assert not crashed[index]
        if isinstance(report, CheckIn):
            last_seen[index] = report.at_ms - int(fleet.population.skew_ms[index])
    down = fleet._machines.up_ms > fleet.now_ms
    for index in np.flatnonzero(crashed & ~recovered & down).tolist():
        assert last_seen.get(index, 0) < fleet._machines.down_ms[index]


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_numbers_rise_in_the_order_of_sending_when_nothing_is_delayed(seed: int) -> None:
    last: dict[str, int] = {}
    for report in decoded(run_through(Fleet(small(QUIET, seed=seed)))):
        assert report.seq > last.get(report.device, -1)
        last[report.device] = report.seq


def test_the_first_check_in_of_a_boot_lists_versions_and_later_ones_do_not() -> None:
    fleet = Fleet(small(QUIET))
    boots: dict[tuple[str, str], int] = defaultdict(int)
    for report in decoded(run_through(fleet)):
        if isinstance(report, CheckIn):
            boots[report.device, report.boot_id] += 1
            if boots[report.device, report.boot_id] == 1:
                assert report.versions["acme/content"] in ("290", "291")
    assert max(boots.values()) > 20


def test_a_boot_loop_is_one_report_of_the_first_crash_with_the_version_from_disk() -> None:
    fleet = Fleet(small(QUIET))
    loops = [report for report in decoded(run_through(fleet)) if isinstance(report, BootLoop)]
    assert len({report.device for report in loops}) == len(loops) > 10
    for report in loops:
        disk = {entry.product: entry for entry in report.versions}
        activated_ms = disk["content"].activated_at_ms
        assert disk["content"].version == "291"
        assert disk["sensor"].version == "7"
        assert activated_ms is not None
        assert 0 <= report.at_ms - activated_ms <= 1000
        assert report.frames[0].offset == 0xE14ED


def test_offered_comes_before_the_crash_and_installed_only_from_survivors() -> None:
    fleet = Fleet(small(QUIET))
    offered: dict[int, int] = {}
    installed: set[int] = set()
    for report in decoded(run_through(fleet)):
        if isinstance(report, Offered):
            offered[_index(report)] = report.at_ms
        if isinstance(report, Installed):
            installed.add(_index(report))
    shipment = fleet.shipments[0]
    heard = ~fleet.population.unheard
    assert set(offered) == set(np.flatnonzero(shipment.taken & heard).tolist())
    assert installed <= set(np.flatnonzero(shipment.taken & ~shipment.crashed).tolist())
    assert len(installed) > 20
    for index in np.flatnonzero(shipment.crashed & heard).tolist():
        assert offered[index] <= shipment.activated_ms[index] + int(fleet.population.skew_ms[index])


def test_nobody_but_those_with_the_condition_is_harmed() -> None:
    fleet = Fleet(small())
    run_through(fleet)
    sensor = fleet._versions[0]
    assert set(sensor[fleet.shipments[0].crashed].tolist()) == {0}


@pytest.mark.parametrize("minutes", [0, 3, 7])
def test_stop_really_stops_and_changes_nothing_before_it(minutes: int) -> None:
    scenario = small()
    stop_ms = scenario.rollout_ms + minutes * 60_000
    free, stopped = Fleet(scenario), Fleet(scenario)
    assert stopped.stop(*UPDATE, stop_ms)
    run_through(free)
    offered = [report for report in decoded(run_through(stopped)) if isinstance(report, Offered)]
    skew_ms = stopped.population.skew_ms
    assert all(report.at_ms - skew_ms[_index(report)] < stop_ms for report in offered)
    taken = stopped.shipments[0].taken
    assert bool((free.shipments[0].taken | ~taken).all())
    assert free.truth().pushed > taken.sum()
    # Push times are even by rank, so the share of the fleet that was on and pushed to is about minutes / 10.
    assert taken.sum() <= 300 * minutes / 10
    assert bool((stopped.shipments[0].crashed <= free.shipments[0].crashed).all())
    assert (stopped.truth().lost == 0) is (minutes == 0)


def test_a_stop_is_repeatable_and_a_release_serves_those_passed_over() -> None:
    scenario = small()
    fleet = Fleet(scenario)
    for _ in range(2):
        assert fleet.stop(*UPDATE, scenario.rollout_ms)
    while fleet.now_ms < scenario.rollout_ms + 300_000:
        fleet.step()
    assert fleet.truth().pushed == 0
    fleet.resume(*UPDATE, fleet.now_ms)
    run_through(fleet)
    assert fleet.truth().pushed > 150
    assert not fleet.stop("acme", "content", "999", fleet.now_ms)


def test_what_is_not_stopped_is_the_same_in_the_counterfactual() -> None:
    scenario = small(SMALL.replace('name = "*", over_seconds = 600', 'name = "*", over_seconds = 600, share = 0.5'))
    free, stopped = Fleet(scenario), Fleet(scenario)
    stopped.stop(*UPDATE, scenario.rollout_ms)
    untouched = {
        name: [
            report.at_ms
            for report in decoded(run_through(fleet))
            if isinstance(report, Bsod) and report.module != "acme.sys" and not free.shipments[0].taken[_index(report)]
        ]
        for name, fleet in (("free", free), ("stopped", stopped))
    }
    assert untouched["free"] == untouched["stopped"]
    assert untouched["free"]


def test_the_step_does_not_change_who_is_hit() -> None:
    coarse, fine = Fleet(small(step_seconds=5.0)), Fleet(small(step_seconds=1.0))
    for fleet in (coarse, fine):
        run_through(fleet)
    same = (coarse.shipments[0].crashed == fine.shipments[0].crashed).mean()
    assert same > 0.98
