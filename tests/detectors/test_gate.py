"""The gate: it passes no harm more often than alpha, believes nobody alone, and does pass health."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

import detectors.gate
import detectors.gate_cell
from detectors.gate import (
    AgeCoverage,
    AgeNeed,
    CellWord,
    Gate,
)
from detectors.gate_cell import CellGate, HarmBound
from detectors.gate_trial import Ring, passes

BOUND = HarmBound(ratio=1.5, excess_per_device_day=0.002)
SEEN = AgeCoverage(booted=10, woken=10, hours=100.0)
EVENTS = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 1), st.floats(0, 500)), max_size=30)


def not_more_than(alpha: float, passed: int, runs: int) -> bool:
    """Whether so many passes would be seen in more than one of a thousand such tests if alpha were just kept."""
    return bool(binom.sf(passed - 1, runs, alpha) > 1e-3)


def log_ratio(cell: CellGate) -> float:
    """Return the ratio's evidence with everybody believed."""
    return cell.evidence(leave_one_out=False).log_ratio


def test_the_docstrings_examples_fire_where_they_say() -> None:
    for module in (detectors.gate, detectors.gate_cell):
        assert doctest.testmod(module).attempted > 0
        assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("ratio", [1.5, 3.0])
def test_harm_by_ratio_passes_no_more_often_than_alpha(ratio: float) -> None:
    """Shares of all sizes, looked at after every crash: the ratio's e-process alone keeps alpha at its limit."""
    rng = np.random.default_rng(21)
    alpha, runs, passed = 0.05, 400, 0
    for _ in range(runs):
        cell = CellGate(BOUND)
        shares = rng.uniform(0.02, 0.9, size=60)
        exposed = rng.random(60) < ratio * shares / (ratio * shares + 1 - shares)
        best = 0.0
        for x, w in zip(exposed.tolist(), shares.tolist(), strict=True):
            cell.add(0, x, w)
            best = max(best, log_ratio(cell))
        passed += best >= math.log(1 / alpha)
    assert not_more_than(alpha, passed, runs), passed


def test_harm_by_excess_passes_no_more_often_than_alpha() -> None:
    """At the very rate that is harm, asked just before every crash, where the evidence peaks."""
    rng = np.random.default_rng(22)
    alpha, runs, passed = 0.05, 500, 0
    bound = HarmBound(ratio=1.5, excess_per_device_day=0.002, background_per_device_day=0.001)
    for _ in range(runs):
        cell = CellGate(bound)
        best = 0.0
        for gap in rng.exponential(1 / bound.rate, size=40).tolist():
            cell.expose(0, gap)
            best = max(best, cell.evidence(leave_one_out=False).log_excess)
            cell.add(0, True, 0.0)
        passed += best >= math.log(1 / alpha)
    assert passed > 0
    assert not_more_than(alpha, passed, runs), passed


def test_a_share_told_too_small_is_safe_and_one_told_too_large_is_not() -> None:
    """The lower bound is the safe side here, the opposite of the kill's; and this test can fail."""
    rng = np.random.default_rng(23)
    alpha, runs, true_share = 0.05, 60, 0.3
    passed = {0.1: 0, 0.3: 0, 0.6: 0}
    p = 1.5 * true_share / (1.5 * true_share + 1 - true_share)
    for _ in range(runs):
        exposed = (rng.random(120) < p).tolist()
        for told in passed:
            cell = CellGate(BOUND)
            best = 0.0
            for x in exposed:
                cell.add(0, x, told)
                best = max(best, log_ratio(cell))
            passed[told] += best >= math.log(1 / alpha)
    assert passed[0.1] <= passed[0.3]
    assert not_more_than(alpha, passed[0.3], runs)
    assert passed[0.6] > 0.5 * runs


def test_devices_that_may_be_exposed_count_as_exposed_when_they_crash() -> None:
    """Most of the exposed are not known to be: counted as controls their crashes pass harm, as exposed never."""
    rng = np.random.default_rng(24)
    alpha, runs, passed = 0.05, 40, {"as exposed": 0, "as control": 0}
    known, unknown, control = 0.3, 0.6, 0.1
    weights = np.array([1.5 * known, 1.5 * unknown, control])
    for _ in range(runs):
        arms = rng.choice(3, size=300, p=weights / weights.sum()).tolist()
        for name in passed:
            cell = CellGate(BOUND)
            best = 0.0
            for arm in arms:
                cell.add(0, arm == 0 or (arm == 1 and name == "as exposed"), known)
                best = max(best, log_ratio(cell))
            passed[name] += best >= math.log(1 / alpha)
    assert not_more_than(alpha, passed["as exposed"], runs)
    assert passed["as control"] > 0.1 * runs


@given(st.booleans(), st.floats(0, 1), st.floats(0, 1))
def test_one_crash_is_a_fair_bet_at_every_share_up_to_the_true_one(exposed: bool, told: float, more: float) -> None:
    """Exactly, not by simulation: the mean of each bet over both outcomes is at most 1 if the cell is harmed."""
    true = told + more * (1 - told)
    p = 1.5 * true / (1.5 * true + 1 - true)
    mean = 0.0
    for x, chance in ((True, p), (False, 1 - p)):
        cell = CellGate(BOUND)
        cell.add(0, x, told)
        mean += chance * math.exp(log_ratio(cell))
    assert mean <= 1 + 1e-12
    # A crash of an exposed device is never evidence of health, one of a control device never of harm.
    cell = CellGate(BOUND)
    cell.add(0, exposed, told)
    assert log_ratio(cell) <= 1e-12 if exposed else log_ratio(cell) >= -1e-12


def test_harm_in_one_of_64_cells_beside_a_cure_does_not_pass_as_it_does_when_pooled() -> None:
    ring = Ring(ratios=(20.0, *([0.2] * 63)), harmed=1, days=6, looks_per_day=2)
    passed = passes(ring, BOUND, 0.05, runs=30, seed=25)
    assert passed.gate == 0
    assert passed.pooled >= 27


def test_harm_at_the_limit_in_one_of_eight_cells_passes_no_more_often_than_alpha() -> None:
    """Both the ratio and the excess are just harm, and the background is known exactly: the hardest there is."""
    bound = HarmBound(ratio=1.5, excess_per_device_day=0.002, background_per_device_day=0.004)
    ring = Ring(
        ratios=(1.5, *([0.1] * 7)), harmed=1, crashes_per_device_day=0.004, groups=2, exposed=600, control=600, days=8
    )
    passed = passes(ring, bound, 0.2, runs=150, seed=26)
    assert not_more_than(0.2, passed.gate, 150), passed


def test_health_does_pass() -> None:
    """A gate that never opened would keep alpha as well."""
    healthy = Ring(ratios=(1.0,) * 8, harmed=0, crashes_per_device_day=0.0005, days=16)
    assert passes(healthy, BOUND, 0.05, runs=20, seed=27).gate >= 19
    # Where the background alone is over the harmful excess, the ratio shows health.
    busy = Ring(ratios=(0.8,) * 4, harmed=0, crashes_per_device_day=0.02, days=12, looks_per_day=2)
    assert passes(busy, BOUND, 0.05, runs=10, seed=28).gate >= 9


@settings(max_examples=60)
@given(honest=EVENTS, lies=EVENTS)
def test_what_one_group_says_never_raises_evidence_over_that_of_the_others(
    honest: list[tuple[int, bool, float, float]], lies: list[tuple[int, bool, float, float]]
) -> None:
    """Fake device-days, fake control crashes, fake shares: the least over leaving one out is at most the honest."""
    told, without = CellGate(BOUND), CellGate(BOUND)
    liar = 9
    for cell in (told, without):
        for group, exposed, share, days in honest:
            cell.expose(group, days)
            cell.add(group, exposed, share)
    for _, exposed, share, days in lies:
        told.expose(liar, days * 1e6)
        told.add(liar, exposed, share)
    honest_evidence = without.evidence(leave_one_out=False).log_evidence
    if lies:
        assert told.evidence().log_evidence <= honest_evidence + 1e-9


def test_a_flood_of_fake_healthy_device_days_opens_nothing() -> None:
    gate = Gate(BOUND, 0.05)
    gate.expose("form=laptop", 0, 1e12)
    for _ in range(1000):
        gate.add(["form=laptop"], 0, False, 0.5)
    answer = gate.ask({"form=laptop": 1.0}, SEEN)
    assert (answer.passed, answer.cells[0].word) == (False, CellWord.ONE_GROUP)
    assert answer.cells[0].device_days_needed is None
    gate.expose("form=laptop", 1, 10.0)
    answer = gate.ask({"form=laptop": 1.0}, SEEN)
    assert (answer.passed, answer.cells[0].word, answer.cells[0].left_out) == (False, CellWord.LACKING, 0)
    # Trusted by name, or in a fleet of one tenant, he is believed.
    assert gate.ask({"form=laptop": 1.0}, SEEN, trusted={0, 1}).passed
    assert gate.ask({"form=laptop": 1.0}, SEEN, leave_one_out=False).passed


def covered(names: list[str], days: float = 5000.0) -> Gate:
    """Return a gate in which these cells have passed."""
    gate = Gate(BOUND, 0.05)
    for name in names:
        for group in range(3):
            gate.expose(name, group, days)
    return gate


def test_one_uncovered_cell_holds_all_and_is_named() -> None:
    gate = covered(["form=laptop", "model=A"])
    answer = gate.ask({"form=laptop": 0.9, "model=A": 0.5, "model=B": 0.1}, SEEN, exposed_now={"model=B": 100.0})
    assert not answer.passed
    assert answer.uncovered == ["model=B"]
    lacking = answer.cells[2]
    assert lacking.device_days_needed is not None
    assert lacking.hours_needed == pytest.approx(lacking.device_days_needed / 100 * 24)
    assert "model=B (10 % of the ring) is not covered" in answer.sentence
    assert gate.ask({"form=laptop": 0.9, "model=A": 0.5}, SEEN).passed


def test_excluding_cells_raises_what_the_others_need() -> None:
    gate = covered(["model=A"])
    answer = gate.ask({"model=A": 0.5, "model=B": 0.1, "model=C": 0.1}, SEEN, exclude=["model=B", "model=C"])
    assert answer.passed
    assert answer.log10_needed == pytest.approx(math.log10(3 / 0.05))
    assert "2 excluded" in answer.sentence
    with pytest.raises(ValueError, match="model=D"):
        gate.ask({"model=A": 0.5}, SEEN, exclude=["model=D"])


def test_choosing_what_to_exclude_after_looking_keeps_alpha() -> None:
    """Five harmed cells at the limit; whoever asks excludes whichever four look worst."""
    rng = np.random.default_rng(31)
    alpha, runs, passed = 0.2, 120, 0
    names = [f"model={index}" for index in range(5)]
    for _ in range(runs):
        gate = Gate(BOUND, alpha)
        for name in names:
            for gap in rng.exponential(1 / BOUND.rate, size=int(rng.integers(1, 25))).tolist():
                gate.expose(name, 0, gap)
                gate.add([name], 0, True, 0.0)
            gate.expose(name, 0, float(rng.exponential(1 / BOUND.rate)))
        found = gate.ask(dict.fromkeys(names, 0.2), SEEN, leave_one_out=False, plan=False).cells
        worst = [cell.name for cell in sorted(found, key=lambda cell: cell.log10_evidence)[:4]]
        passed += gate.ask(dict.fromkeys(names, 0.2), SEEN, exclude=worst, leave_one_out=False).passed
    assert not_more_than(alpha, passed, runs), passed


def test_no_cells_or_none_but_excluded_ones_never_pass() -> None:
    gate = covered(["model=A"])
    assert not gate.ask({}, SEEN).passed
    assert not gate.ask({"model=A": 1.0}, SEEN, exclude=["model=A"]).passed


def test_control_crashes_alone_pass_no_cell_that_nobody_tried() -> None:
    gate = Gate(BOUND, 0.05)
    for group in range(3):
        for _ in range(500):
            gate.add(["model=A"], group, False, 0.5)
    assert gate.ask({"model=A": 1.0}, SEEN).cells[0].word is CellWord.UNCOVERED


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (None, "0 exposed devices have booted since < 1"),
        (AgeCoverage(booted=1, woken=0, hours=9), "woken"),
        (AgeCoverage(booted=1, woken=1, hours=5.9), "5.9 h < 6 h"),
        (AgeCoverage(booted=1, woken=1, hours=math.nan), "nan h"),
        (AgeCoverage(booted=1, woken=1, hours=6), ""),
    ],
)
def test_the_update_must_have_seen_a_boot_a_wake_and_its_latency(seen: AgeCoverage | None, says: str) -> None:
    gate = Gate(BOUND, 0.05, AgeNeed(hours=6))
    for group in range(3):
        gate.expose("model=A", group, 5000.0)
    answer = gate.ask({"model=A": 1.0}, seen)
    assert answer.passed is not bool(says)
    assert says in answer.sentence


def test_a_crash_after_a_pass_can_shut_the_gate_again() -> None:
    gate = covered(["model=A"], days=1500.0)
    assert gate.ask({"model=A": 1.0}, SEEN).passed
    for _ in range(3):
        gate.add(["model=A"], 0, True, 0.1)
        gate.add(["model=A"], 1, True, 0.1)
    answer = gate.ask({"model=A": 1.0}, SEEN)
    assert not answer.passed
    assert "6 exposed crashes in 4500 device-days" in answer.sentence


@settings(max_examples=60)
@given(EVENTS, st.sampled_from([0.2, 0.05, 1e-3]))
def test_the_device_days_told_to_be_needed_are_enough_and_hardly_more(
    events: list[tuple[int, bool, float, float]], alpha: float
) -> None:
    cell = CellGate(BOUND)
    for group, exposed, share, days in events:
        cell.expose(group, days)
        cell.add(group, exposed, share)
    needed = -math.log(alpha)
    more = cell.days_needed(needed)
    if more is None or not cell.groups or cell.device_days < 1.0:
        return
    for factor, enough in ((1.0, True), (0.99, more == 0.0)):
        grown = CellGate.restore(cell.snapshot())
        for told in cell.snapshot().groups:
            grown.expose(told.group, factor * more * told.device_days / cell.device_days)
        assert (grown.evidence().log_evidence >= needed) is enough


@given(st.lists(st.floats(0, 3000), min_size=1, max_size=6), st.sampled_from([0.2, 0.05, 1e-3]))
def test_a_quiet_cell_is_judged_by_the_formula_and_planned_for(days: list[float], alpha: float) -> None:
    """Cells without crashes take a shorter way to the same numbers."""
    cell = CellGate(BOUND)
    for group, one in enumerate(days):
        cell.expose(group, one)
    exposure = BOUND.rate * (math.fsum(days) - max(days))
    parts = [0.03, 0.06, 0.125, 0.18, 0.25, 0.35, 0.5, 0.7]
    bets = 0.5 * math.exp(exposure) + sum(0.5 / 8 * math.exp((1 - part) * exposure) for part in parts)
    found = cell.evidence()
    assert found.log_evidence == pytest.approx(math.log(0.5 * (1 + bets)), abs=1e-9)
    assert found.left_out is not None
    assert days[found.left_out] == max(days)
    # A crash of a control where nobody is exposed says nothing, and takes the cell the long way.
    slow = CellGate.restore(cell.snapshot())
    slow.add(0, False, 0.0)
    assert slow.evidence().log_evidence == pytest.approx(found.log_evidence, abs=1e-9)
    needed = -math.log(alpha)
    quick, general = cell.days_needed(needed), slow.days_needed(needed)
    if math.fsum(days) > 1.0 and exposure > 1e-3:
        assert quick == pytest.approx(general, rel=1e-6, abs=1e-3)


def test_what_was_computed_is_not_told_again_after_a_change() -> None:
    cell = CellGate(BOUND)
    for group in (0, 1):
        cell.expose(group, 500.0)
    first, planned = cell.evidence(), cell.days_needed(3.0)
    assert cell.evidence() == first
    assert cell.evidence(leave_one_out=False).log_evidence > first.log_evidence
    assert cell.evidence([0]).left_out == 1
    cell.expose(1, 500.0)
    cell.expose(0, 500.0)
    grown = cell.evidence()
    assert grown.log_evidence > first.log_evidence
    assert planned is not None
    assert 0.0 < (cell.days_needed(3.0) or 0.0) < planned
    cell.add(0, True, 0.1)
    cell.add(1, True, 0.1)
    assert cell.evidence().log_evidence < grown.log_evidence


def test_what_a_cell_is_told_does_not_depend_on_what_is_asked_beside_it() -> None:
    gate = covered([f"model={index}" for index in range(64)], days=100.0)
    gate.add(["model=3"], 1, True, 0.1)
    needed = {f"model={index}": 1 / 64 for index in range(64)}
    whole = gate.ask(needed, SEEN)
    assert whole.cells == [gate.ask({name: share}, SEEN).cells[0] for name, share in needed.items()]
