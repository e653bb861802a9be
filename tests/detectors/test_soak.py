"""Planning: what it says is what the evidence then does, and a question without an answer says why."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from detectors.gate_cell import CellGate, HarmBound
from detectors.sequential import RateRatio
from detectors.soak import certainty, crashes_in_a_row, crashes_needed, crossings, hours_needed, ring_needed
from detectors.soak_gate import gate_needed
from detectors.soak_question import Harm, Ring, SoakError, TooManyCrashesError, Watch, harm_of_probability
from detectors.tenants import ROWS, TenantRatio

KILL = Watch(alpha=1e-6)


def agrees(seen: int, runs: int, chance: float, off: float = 0.0) -> bool:
    """Whether `seen` of `runs` is no surprise (one in a thousand) for a chance that may be wrong by `off`."""
    low, high = binomtest(seen, runs).proportion_ci(0.999)
    return bool(low - off <= chance <= high + off)


@pytest.mark.parametrize(("ratio", "share", "runs"), [(10.0, 0.1, 400), (3.0, 0.3, 150), (1000.0, 0.5, 300)])
def test_crashes_until_the_evidence_suffices_are_those_of_the_detector(ratio: float, share: float, runs: int) -> None:
    rng = np.random.default_rng(41)
    chances = crossings(ratio, share, KILL)
    odds = ratio * share / (ratio * share + 1 - share)
    first = []
    for _ in range(runs):
        detector = RateRatio(1.5)
        exposed = rng.random(len(chances)) < odds
        # Looked at after every crash, by halving: the maximum of a batch never falls with its length.
        low, high = 1, len(chances)
        while low < high:
            middle = (low + high) // 2
            detector = RateRatio(1.5)
            detector.update(exposed[:middle], np.full(middle, share))
            low, high = (low, middle) if detector.maximum >= KILL.log_needed else (middle + 1, high)
        first.append(low)
    for part in (0.1, 0.5, 0.9):
        k = crashes_needed(chances, part)
        assert k is not None
        assert agrees(sum(one <= k for one in first), runs, float(chances[: k + 1].sum()))


def noticed(harm: Harm, devices: int, share: float, hours: float, runs: int, seed: int) -> int:
    """Simulate rings device by device, with the share at risk falling as they crash; return how often it is noticed."""
    rng = np.random.default_rng(seed)
    controls, seen = round(devices * (1 - share) / share), 0
    for _ in range(runs):
        exposed_at = rng.exponential(24 / (harm.crashes_per_device_day * harm.ratio), size=devices)
        exposed_at = exposed_at[exposed_at <= min(hours, harm.window_hours or hours)]
        control_at = rng.exponential(24 / harm.crashes_per_device_day, size=controls)
        control_at = control_at[control_at <= hours]
        order = np.argsort(np.concatenate([exposed_at, control_at]))
        exposed = np.repeat([True, False], [len(exposed_at), len(control_at)])[order]
        left = devices - np.cumsum(exposed) + exposed
        others = controls - np.cumsum(~exposed) + ~exposed
        detector = RateRatio(1.5)
        detector.update(exposed, left / (left + others))
        seen += detector.maximum >= KILL.log_needed
    return seen


@pytest.mark.parametrize(
    ("harm", "share"),
    [
        (Harm(ratio=10, crashes_per_device_day=0.001), 0.1),
        (Harm(ratio=100, crashes_per_device_day=0.001), 0.02),
        (Harm(ratio=4, crashes_per_device_day=0.002), 0.3),
        (harm_of_probability(0.01, 1.0, 0.0005), 0.05),
    ],
)
def test_the_certainty_of_the_ring_it_names_is_what_happens(harm: Harm, share: float) -> None:
    devices = ring_needed(harm, KILL, Ring(share=share), 24.0, 0.8)
    told = certainty(harm, KILL, Ring(share=share), devices, 24.0)
    assert 0.8 <= told < 0.85
    assert agrees(noticed(harm, devices, share, 24.0, 300, seed=42), 300, told, off=0.02)


def test_where_most_of_a_small_ring_crashes_it_is_careful() -> None:
    harm = harm_of_probability(0.98, 0.5, 0.001)
    devices = ring_needed(harm, KILL, Ring(share=0.02), 1.0, 0.9)
    assert devices <= 8
    told = certainty(harm, KILL, Ring(share=0.02), devices, 1.0)
    assert told <= noticed(harm, devices, 0.02, 1.0, 200, seed=43) / 200 + 0.01


@pytest.mark.parametrize(("ratio", "tenants"), [(10.0, 3), (100.0, 10)])
def test_with_tenants_it_takes_the_crashes_that_leaving_one_out_takes(ratio: float, tenants: int) -> None:
    rng = np.random.default_rng(44)
    share, runs = 0.1, 40
    watch = Watch(alpha=1e-6, tenants=tenants)
    chances = crossings(ratio, share, watch)
    median = crashes_needed(chances, 0.5)
    assert median is not None
    odds = ratio * share / (ratio * share + 1 - share)
    first = []
    for _ in range(runs):
        detector = TenantRatio(1.5)
        n = 4 * median
        path = detector.update(rng.random(n) < odds, np.full((n, ROWS), share), rng.integers(0, tenants, n)).min(axis=1)
        first.append(int(np.argmax(path >= watch.log_needed)) + 1)
    assert agrees(sum(one <= median for one in first), runs, float(chances[: median + 1].sum()), off=0.05)
    alone = crashes_needed(crossings(ratio, share, KILL), 0.5)
    assert alone is not None
    assert median > alone


def test_looking_in_blocks_hardly_changes_what_many_crashes_take() -> None:
    """Where hundreds are needed the simulation looks seldom; the raw statistic's factor for two of three is a bound."""
    alone = crashes_needed(crossings(3.0, 0.1, KILL), 0.5)
    three = crashes_needed(crossings(3.0, 0.1, Watch(alpha=1e-6, tenants=3)), 0.5)
    assert alone is not None
    assert three is not None
    assert 1.5 * alone <= three <= 2.2 * alone


def test_crashes_in_a_row_are_the_documented_ones() -> None:
    assert crashes_in_a_row(0.1, KILL) == 8
    assert crashes_in_a_row(0.1, Watch(alpha=1e-6, tenants=4)) == 11
    assert crashes_in_a_row(0.001, KILL) == 3
    assert crashes_in_a_row(0.001, Watch(alpha=1e-6, devices_least=5)) == 5
    assert crashes_in_a_row(1.0, KILL) is None


def test_the_weight_asks_for_what_the_mean_of_e_values_needs() -> None:
    watch = Watch(alpha=1e-6, weight=0.5)
    assert 0.5 * math.exp(watch.log_needed) + 0.5 == pytest.approx(1e6)


@given(
    ratio=st.floats(2.5, 500),
    share=st.floats(0.02, 0.7),
    devices=st.integers(1, 20_000),
    hours=st.floats(0.1, 200),
)
@settings(max_examples=40)
def test_more_devices_and_more_hours_never_notice_less(ratio: float, share: float, devices: int, hours: float) -> None:
    harm, ring = Harm(ratio=ratio, crashes_per_device_day=0.001), Ring(share=share)
    told = certainty(harm, KILL, ring, devices, hours)
    assert 0.0 <= told <= 1.0
    assert certainty(harm, KILL, ring, 2 * devices, hours) >= told - 1e-9
    assert certainty(harm, KILL, ring, devices, 2 * hours) >= told - 1e-9


@pytest.mark.parametrize("ring", [Ring(share=0.1), Ring(fleet=50_000)])
def test_both_ways_of_asking_agree(ring: Ring) -> None:
    harm = Harm(ratio=50, crashes_per_device_day=0.001)
    devices = ring_needed(harm, KILL, ring, 8.0, 0.95)
    assert hours_needed(harm, KILL, ring, devices, 0.95) == pytest.approx(8.0, rel=0.02)
    assert certainty(harm, KILL, ring, devices, 8.0) >= 0.95
    assert certainty(harm, KILL, ring, round(0.97 * devices), 8.0) < 0.95


def test_harm_of_a_probability_is_over_when_it_says() -> None:
    harm = harm_of_probability(0.3, 2.0, 0.001)
    assert harm.chance(2.0) == pytest.approx(0.3)
    assert harm.chance(50.0) == harm.chance(2.0)
    ring = Ring(share=0.1)
    # What was not noticed while it lasted is not noticed later.
    assert certainty(harm, KILL, ring, 20, 50.0) == certainty(harm, KILL, ring, 20, 2.0)
    with pytest.raises(SoakError, match="while it lasts"):
        hours_needed(harm, KILL, ring, 5, 0.95)


@pytest.mark.parametrize("background", [0.0002, 0.0006])
def test_a_healthy_cell_passes_the_gate_by_the_device_days_it_names(background: float) -> None:
    rng = np.random.default_rng(45)
    bound = HarmBound(ratio=1.5, excess_per_device_day=0.002)
    plan = gate_needed(bound, 0.05, background, 0.9)
    assert plan.device_days is not None
    assert plan.device_days > plan.device_days_quiet
    passed = 0
    for _ in range(300):
        cell = CellGate(bound)
        cell.expose(0, plan.device_days)
        for _ in range(int(rng.poisson(background * plan.device_days))):
            cell.add(0, True, 0.0)
        passed += cell.evidence(leave_one_out=False).log_evidence >= -math.log(0.05)
    assert agrees(passed, 300, 0.9, off=0.06)


def test_the_gate_needs_more_of_few_tenants_and_nothing_shows_at_a_background_like_the_harm() -> None:
    bound = HarmBound(ratio=1.5, excess_per_device_day=0.002)
    one, two = gate_needed(bound, 0.05, 0.0005, 0.9), gate_needed(bound, 0.05, 0.0005, 0.9, tenants=2)
    assert two.device_days_quiet == pytest.approx(2 * one.device_days_quiet)
    cell = CellGate(bound)
    for group in (0, 1):
        cell.expose(group, two.device_days_quiet / 2)
    assert cell.evidence().log_evidence == pytest.approx(-math.log(0.05))
    assert gate_needed(bound, 0.05, 0.002, 0.9).device_days is None


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.5])
def test_tolerated_harm_cannot_be_noticed_and_says_what_to_do(ratio: float) -> None:
    with pytest.raises(SoakError, match=r"cannot be noticed at tolerated_ratio 1\.5: lower"):
        crossings(ratio, 0.1, KILL)


def test_harm_that_takes_too_many_crashes_says_so() -> None:
    with pytest.raises(TooManyCrashesError, match="over 20000 crashes"):
        ring_needed(Harm(ratio=1.55, crashes_per_device_day=0.01), KILL, Ring(share=0.1), 1e6, 0.95)
    with pytest.raises(SoakError, match="no ring of up to 199 devices"):
        ring_needed(Harm(ratio=3, crashes_per_device_day=0.001), KILL, Ring(fleet=200), 24.0, 0.95)
    with pytest.raises(SoakError, match="in 90 days"):
        hours_needed(Harm(ratio=3, crashes_per_device_day=0.001), KILL, Ring(share=0.1), 10, 0.95)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: Harm(ratio=2, crashes_per_device_day=0), "background"),
        (lambda: Harm(ratio=-1, crashes_per_device_day=1), "rate ratio"),
        (lambda: Harm(ratio=2, crashes_per_device_day=1, window_hours=0), "hours"),
        (lambda: harm_of_probability(1.0, 1, 0.001), "probability"),
        (lambda: harm_of_probability(0.5, 0, 0.001), "hours"),
        (lambda: harm_of_probability(0.5, 1, 0), "background"),
        (Ring, "either"),
        (lambda: Ring(share=0.1, fleet=10), "either"),
        (lambda: Ring(share=1.0), "no control left"),
        (lambda: Ring(fleet=1), "no control"),
        (lambda: Watch(alpha=0), "alpha"),
        (lambda: Watch(alpha=0.1, weight=0), "weight"),
        (lambda: Watch(alpha=0.1, tenants=33), "tenants"),
        (lambda: ring_needed(Harm(ratio=9, crashes_per_device_day=1), KILL, Ring(share=0.1), 1, 1.0), "certainty"),
        (lambda: hours_needed(Harm(ratio=9, crashes_per_device_day=1), KILL, Ring(fleet=9), 9, 0.9), "1 to 8"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(ask: object, says: str) -> None:
    assert callable(ask)
    with pytest.raises(SoakError, match=says):
        ask()
