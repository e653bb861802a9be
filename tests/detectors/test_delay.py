"""Reporting delay by arm: a quick arm makes no evidence, and equal arms cost little."""

import doctest
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import detectors.delay
from detectors.delay import BINS, HISTORY_LEAST, DelayCorrection, DelayHistory, corrected, delay_bin
from detectors.sequential import RateRatio


def history(seconds_mean: float, count: int = 2000) -> DelayHistory:
    made = DelayHistory()
    made.add(np.random.default_rng(1).exponential(seconds_mean, count))
    return made


def false_alarms(mean_exposed: float, mean_control: float, *, correct: bool, paths: int = 200) -> int:
    """Return in how many healthy rollouts evidence reaches 1e6 within the first half hour.

    400 crashes an hour, one in ten exposed, arms alike but for how soon they are heard of.
    """
    rng = np.random.default_rng(7)
    known = history(mean_control)
    alarms = 0
    for _ in range(paths):
        crashed = np.sort(rng.uniform(0, 1800, 200))
        x = rng.random(200) < 0.1
        delay = np.where(x, rng.exponential(mean_exposed, 200), rng.exponential(mean_control, 200))
        heard = crashed + delay
        order = np.argsort(heard)
        detector, correction = RateRatio(1.5), DelayCorrection()
        for place in order[heard[order] < 1800].tolist():
            factor = correction.factor(known, float(delay[place])) if correct else 1.0
            if x[place]:
                correction.add(float(delay[place]))
            detector.update(x[place : place + 1], [float(corrected(np.array(0.1), factor))])
        alarms += detector.maximum >= math.log(1e6)
    return alarms


def test_an_arm_that_reports_sooner_kills_healthy_rollouts_unless_odds_are_corrected() -> None:
    assert false_alarms(5.0, 7200.0, correct=False) > 100
    assert false_alarms(5.0, 7200.0, correct=True) == 0
    assert false_alarms(60.0, 3600.0, correct=True) == 0


def test_equal_arms_pay_little() -> None:
    rng = np.random.default_rng(8)
    known = history(120.0)
    counts: dict[bool, list[int]] = {True: [], False: []}
    for _ in range(60):
        delays = rng.exponential(120.0, 40)
        for correct in counts:
            detector, correction = RateRatio(1.5), DelayCorrection()
            for number, delay in enumerate(delays.tolist()):
                factor = correction.factor(known, delay) if correct else 1.0
                correction.add(delay)
                if detector.update([True], [float(corrected(np.array(0.1), factor))]) >= math.log(1e6):
                    counts[correct].append(number + 1)
                    break
    assert np.mean(counts[True]) < 1.35 * np.mean(counts[False])


@given(st.lists(st.floats(-10, 1e6), max_size=60), st.floats(0, 1e6), st.lists(st.floats(0, 1e6), max_size=20))
def test_a_correction_is_never_below_one_and_survives_a_restart(
    before: list[float], delay: float, exposed: list[float]
) -> None:
    known, correction = DelayHistory(), DelayCorrection()
    known.add(before)
    for one in exposed:
        assert correction.factor(known, one) >= 1.0
        correction.add(one)
    again = DelayCorrection.restore(correction.snapshot()), DelayHistory(known.snapshot())
    assert again[0].factor(again[1], delay) == correction.factor(known, delay) >= 1.0
    if len(before) < HISTORY_LEAST:
        assert correction.factor(known, delay) == 1.0


def test_delays_fall_into_bins_of_doubling_width() -> None:
    assert delay_bin([-5, 0, 0.25, 0.26, 0.5, 1, 3600, 1e9]).tolist() == [0, 0, 0, 1, 1, 2, 14, BINS - 1]


def test_a_long_history_forgets_slowly_and_stays_bounded() -> None:
    known = history(5.0, 4000)
    known.add(np.full(50_000, 7200.0))
    assert sum(known.snapshot()) < 60_000
    for _ in range(50):
        known.add(np.full(2000, 7200.0))
    assert sum(known.snapshot()) <= 4096 + 2000
    assert known.completeness()[8] < 0.01


def test_corrected_shares_stay_shares() -> None:
    assert corrected(np.array([0.0, 0.5, 1.0]), 10.0).tolist() == [0.0, 10 / 11, 1.0]


def test_the_examples_hold() -> None:
    assert doctest.testmod(detectors.delay).failed == 0
