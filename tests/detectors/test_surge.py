"""A surge's e-value: fair where hours spread as assumed, unbounded where they don't, careful after incidents."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import surge
from detectors.online_fdr import ELond
from detectors.outliers import CrashPatterns
from detectors.patterns import PatternHour
from detectors.surge import ROWS_LEAST, SHAPES, UNKNOWN, Spread, log_surge, log_truncated, measure


def test_the_doctests_hold() -> None:
    assert doctest.testmod(surge).failed == 0


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-3, 30.0), st.sampled_from(SHAPES))
def test_its_mean_is_one_if_hours_are_as_assumed(mean: float, shape: float) -> None:
    """Summed over all counts, not simulated; what lies beyond is less than a millionth."""
    counts = np.arange(1.0, 60_000.0)
    log_chance = log_truncated(counts, np.full(len(counts), mean), shape)
    assert math.fsum(np.exp(log_chance)) == pytest.approx(1.0, abs=1e-6)
    values = np.exp(log_chance + log_surge(counts, np.full(len(counts), mean), Spread(shape, 1.0)))
    assert math.fsum(values) <= 1.0 + 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 500), st.floats(1e-3, 10.0))
def test_more_devices_say_more_and_a_higher_usual_mean_says_less(devices: int, mean: float) -> None:
    spread = Spread(0.5, 1.0)
    less, more = log_surge([devices, devices + 1], [mean, mean], spread)
    assert more > less
    if devices >= 8 * mean:
        assert log_surge([devices], [mean * 2], spread)[0] <= less + 1e-9


def test_the_spread_is_learnt_one_shape_wider_and_never_from_a_handful() -> None:
    draw = np.random.default_rng(1)
    rates = draw.gamma(2.0, 0.5, 40_000)
    counts = draw.poisson(rates).astype(np.float64)
    counts = counts[counts > 0]
    found = measure(counts, np.ones(len(counts)))
    assert found.shape == 1.0
    assert found.inflation < 1.2
    assert measure(counts[: ROWS_LEAST - 1], np.ones(ROWS_LEAST - 1)) == UNKNOWN


def test_past_incidents_make_it_less_sure_and_not_blind() -> None:
    quiet = np.ones(500)
    calm, shaken = measure(quiet, quiet), measure(np.append(quiet, [80.0] * 5), np.ones(505))
    before, after = (float(log_surge([60.0], [1.0], one)[0]) for one in (calm, shaken))
    assert shaken.inflation > 1.0
    assert 0 < after < before


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        log_surge([0], [1.0], UNKNOWN)


def test_a_storm_is_found_after_a_hundred_thousand_tests_and_a_quiet_fortnight_finds_nothing() -> None:
    """A rank among past hours never suffices by then: e-LOND needs an e-value of hundreds of millions."""
    draw, watch, alerts, largest = np.random.default_rng(4), CrashPatterns(4), ELond(), 0.0
    rates = np.exp(draw.normal(-2.5, 1.2, 60))
    for number in range(100_000):
        alerts.start(f"before-{number}")
        alerts.close(f"before-{number}")
    for hour in range(24 * 12):
        counts = draw.poisson(rates * (1 + 0.8 * math.sin(hour * math.pi / 12)) * draw.gamma(4, 0.25, 60)).tolist()
        seen = [PatternHour(f"s{i}", "b", "m", n, n, 1, 0) for i, n in enumerate(counts) if n]
        if hour % 24 == 0 and hour >= 120:
            watch.fit()
        for score in watch.score(hour, seen):
            largest = max(largest, score.e)
    assert largest < 1e5
    (storm,) = watch.score(24 * 12, [PatternHour("new", "b", "m", 25, 25, 3, 0)])
    alerts.start("storm")
    assert alerts.found("storm", math.log(storm.e))
