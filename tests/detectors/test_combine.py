"""The mean of e-values, and the interval shown beside it."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import detectors.combine
import detectors.interval
from detectors.combine import combine
from detectors.interval import RatioEstimate
from detectors.report import excess_high

LOGS = st.lists(st.floats(-500, 500), min_size=3, max_size=3)


@given(LOGS)
def test_the_mean_lies_between_its_parts_and_pays_at_most_the_weight(logs: list[float]) -> None:
    weights = [0.6, 0.3, 0.1]
    mean = combine(logs, weights)
    assert min(logs) - 1e-9 <= mean <= max(logs) + 1e-9
    assert all(mean >= log + math.log(weight) - 1e-9 for log, weight in zip(logs, weights, strict=True))


@pytest.mark.parametrize("weights", [[0.5, 0.4], [1.5, -0.5], [1.0]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        combine([0.0, 0.0], weights)


def test_the_examples_hold() -> None:
    assert doctest.testmod(detectors.combine).failed == 0
    assert doctest.testmod(detectors.interval).failed == 0


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(9)
    covered, runs, ratio = 0, 400, 4.0
    for _ in range(runs):
        share = rng.uniform(0.05, 0.6, size=40)
        estimate = RatioEstimate()
        estimate.add(rng.random(40) < ratio * share / (ratio * share + 1 - share), share)
        found = estimate.interval()
        covered += found.low <= ratio and (found.high is None or ratio <= found.high)
    assert 0.92 <= covered / runs <= 0.985


def test_one_sided_crashes_set_one_limit_only() -> None:
    none, every = RatioEstimate(), RatioEstimate()
    none.add(np.zeros(10, dtype=bool), np.full(10, 0.5))
    every.add(np.ones(10, dtype=bool), np.full(10, 0.5))
    assert RatioEstimate().interval() == (None, 0.0, None)
    found = none.interval()
    assert found[:2] == (0.0, 0.0)
    assert found.high == pytest.approx(3.8416 / 10, rel=1e-3)
    assert (every.interval().estimate, every.interval().high) == (None, None)
    assert every.interval().low == pytest.approx(10 / 3.8416, rel=1e-3)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=30))
def test_a_restored_estimate_answers_alike(events: list[tuple[bool, float]]) -> None:
    estimate = RatioEstimate()
    estimate.add(np.array([x for x, _ in events], dtype=bool), np.array([w for _, w in events]))
    assert RatioEstimate.restore(estimate.snapshot()).interval() == estimate.interval()


def test_no_crash_bounds_the_excess_by_the_time_watched() -> None:
    day = 86_400.0
    assert excess_high(0, 0.0, 0, 0.0) is None
    assert excess_high(0, 1000 * day, 0, 1000 * day) == pytest.approx(3.689e-3, rel=1e-3)
    fewer = excess_high(5, 1000 * day, 50, 1000 * day)
    assert fewer is not None
    assert fewer < 0
