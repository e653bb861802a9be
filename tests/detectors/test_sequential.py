"""The rate ratio: its bound, its validity, and its arithmetic at the edges."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

import detectors.sequential
from detectors.sequential import POINTS, RateRatio, log_mean_exp, ratio_grid

SHARES = st.floats(0.0, 1.0)
EVENTS = st.lists(st.tuples(st.booleans(), SHARES), min_size=1, max_size=40)


def _crossing(
    detector: RateRatio, exposed: np.ndarray[tuple[int], np.dtype[np.bool_]], share: float, needed: float
) -> int:
    """Return after how many events the evidence is enough; by bisection over batches, as `maximum` never falls."""
    low, high = 0, len(exposed)
    while low < high:
        middle = (low + high) // 2
        fresh = RateRatio(detector.tolerated_ratio)
        fresh.update(exposed[: middle + 1], np.full(middle + 1, share))
        if fresh.maximum >= needed:
            high = middle
        else:
            low = middle + 1
    return low + 1


@pytest.mark.parametrize(
    ("ratio", "share", "wald"),
    [(10, 0.1, 24.2), (100, 0.1, 7.5), (1000, 0.1, 6.2), (100, 0.01, 8.5), (10, 0.5, 35.6), (2, 0.1, 450.0)],
)
def test_crashes_to_kill_are_near_walds_bound(ratio: float, share: float, wald: float) -> None:
    rng = np.random.default_rng(7)
    p = ratio * share / (ratio * share + 1 - share)
    runs = 60
    counts = [_crossing(RateRatio(1.0), rng.random(int(4 * wald) + 30) < p, share, math.log(1e6)) for _ in range(runs)]
    assert 0.8 * wald < float(np.mean(counts)) <= 1.3 * wald


@pytest.mark.parametrize("true_ratio", [1.0, 1.5])
def test_false_alarms_stay_within_alpha_however_often_one_looks(true_ratio: float) -> None:
    rng = np.random.default_rng(11)
    alpha, paths, alarms = 1e-2, 3000, 0
    for _ in range(paths):
        share = rng.uniform(0.02, 0.9, size=150)
        p = true_ratio * share / (true_ratio * share + 1 - share)
        detector = RateRatio(1.5)
        detector.update(rng.random(150) < p, share)
        alarms += detector.maximum >= math.log(1 / alpha)
    # As many alarms would be seen in fewer than one of a thousand such tests if alpha were exceeded.
    assert binom.sf(alarms - 1, paths, alpha) > 1e-3


def test_a_share_told_too_small_does_make_false_alarms() -> None:
    """The validity test can fail: halve the share, and it does."""
    rng = np.random.default_rng(12)
    alarms = 0
    for _ in range(300):
        detector = RateRatio(1.5)
        detector.update(rng.random(300) < 0.4, np.full(300, 0.1))
        alarms += detector.maximum >= math.log(100)
    assert alarms > 100


@given(EVENTS)
def test_a_batch_gives_bit_for_bit_what_its_events_give(events: list[tuple[bool, float]]) -> None:
    batch, single = RateRatio(1.5), RateRatio(1.5)
    batch.update([x for x, _ in events], [w for _, w in events])
    for x, w in events:
        single.update([x], [w])
    assert batch.snapshot() == single.snapshot()
    assert batch.log_evidence == single.log_evidence


@given(EVENTS, st.integers(0, 40))
def test_a_restored_detector_goes_on_bit_for_bit(events: list[tuple[bool, float]], cut: int) -> None:
    through, part = RateRatio(1.5), RateRatio(1.5)
    for index, (x, w) in enumerate(events):
        if index == cut:
            part = RateRatio.restore(part.snapshot())
        assert through.update([x], [w]) == part.update([x], [w])
    assert through.snapshot() == part.snapshot()


@given(EVENTS)
def test_evidence_is_finite_and_its_maximum_never_falls(events: list[tuple[bool, float]]) -> None:
    detector, before = RateRatio(1.5), 0.0
    for x, w in events:
        assert math.isfinite(detector.update([x], [w]))
        assert detector.maximum >= max(before, detector.log_evidence)
        before = detector.maximum


@given(SHARES, SHARES)
def test_a_larger_share_never_gives_an_exposed_crash_more_evidence(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert RateRatio(1.5).update([True], [high]) <= RateRatio(1.5).update([True], [low]) + 1e-12


def test_shares_at_the_edges_are_no_infinite_evidence() -> None:
    certain, impossible, alone = RateRatio(1.5), RateRatio(1.5), RateRatio(1.5)
    assert certain.update([True], [1.0]) == pytest.approx(0.0, abs=1e-6)
    assert impossible.update([True], [0.0]) < math.log(4096)
    assert alone.update([False], [0.0]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, math.inf])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        RateRatio(1.5).update([True], [share])


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one of each"):
        RateRatio(1.5).update([True, False], [0.1])


def test_the_grid_lies_above_the_tolerated_ratio() -> None:
    grid = ratio_grid(1.5)
    assert len(grid) == POINTS
    assert grid[0] > 1.5
    assert grid[-1] == pytest.approx(4096)
    with pytest.raises(ValueError, match="no ratios"):
        ratio_grid(5000.0)


def test_nothing_is_no_evidence() -> None:
    detector = RateRatio(1.5)
    assert detector.update([], []) == 0.0
    assert detector.peak == 0.0
    assert detector.expected_share is None
    assert float(log_mean_exp(np.zeros(4))) == 0.0


def test_the_example_holds() -> None:
    assert doctest.testmod(detectors.sequential).failed == 0


@settings(max_examples=20)
@given(st.integers(4097, 9000))
def test_long_batches_are_cut_without_a_seam(events: int) -> None:
    x = np.arange(events) % 3 == 0
    w = np.full(events, 0.3)
    whole, halves = RateRatio(1.5), RateRatio(1.5)
    whole.update(x, w)
    halves.update(x[:5], w[:5])
    halves.update(x[5:], w[5:])
    # The shares' sum and the path are added in the same order wherever the cut lies.
    assert whole.snapshot() == halves.snapshot()
