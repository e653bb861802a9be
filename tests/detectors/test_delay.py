"""Reporting delay by arm: a quick arm makes no evidence, and equal arms cost little."""

import doctest
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import detectors.delay
from detectors.delay import BINS, DelayCorrection, DelayHistory, corrected, delay_bin
from detectors.sequential import RateRatio


def history(seconds_mean: float, count: int = 2000) -> DelayHistory:
    made = DelayHistory()
    made.add(0, np.random.default_rng(1).exponential(seconds_mean, count))
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
            factor = 1.0
            if correct and x[place]:
                factor = correction.exposed(known, float(delay[place]), float(heard[place]))
            elif correct:
                factor = correction.control(known, float(heard[place]))
            detector.update(x[place : place + 1], [float(corrected(np.array(0.1), factor))])
        alarms += detector.maximum >= math.log(1e6)
    return alarms


def test_an_arm_that_reports_sooner_kills_healthy_rollouts_unless_odds_are_corrected() -> None:
    assert false_alarms(5.0, 7200.0, correct=False) > 100
    assert false_alarms(5.0, 7200.0, correct=True) == 0
    assert false_alarms(60.0, 3600.0, correct=True) == 0
    assert false_alarms(600.0, 7200.0, correct=True) == 0


def needed(since: float, mean: float, *, correct: bool) -> float:
    """Return how many exposed crashes in a row suffice, heard of as everybody's, from so long after the push began."""
    rng = np.random.default_rng(8)
    known, counts = history(mean), []
    for _ in range(60):
        detector, correction = RateRatio(1.5), DelayCorrection()
        for number in range(60):
            after = since + 20.0 * number
            # Heard of by then: delays are truncated by the time since the push began.
            delay = float(-mean * math.log(1 - rng.random() * (1 - math.exp(-after / mean))))
            factor = correction.exposed(known, delay, after) if correct else 1.0
            if detector.update([True], [float(corrected(np.array(0.1), factor))]) >= math.log(1e6):
                counts.append(number + 1)
                break
    return float(np.mean(counts))


def test_equal_arms_pay_little_and_nothing_once_all_delays_have_passed() -> None:
    assert needed(200.0, 120.0, correct=True) < 1.2 * needed(200.0, 120.0, correct=False)
    assert needed(3600.0, 120.0, correct=True) == needed(3600.0, 120.0, correct=False)
    assert needed(600.0, 7200.0, correct=True) < 2.5 * needed(600.0, 7200.0, correct=False)


@given(
    st.lists(st.floats(-10, 1e6), max_size=60),
    st.floats(0, 1e6),
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=20),
)
def test_a_correction_is_never_below_one_and_survives_a_restart(
    before: list[float], since: float, exposed: list[tuple[float, float]]
) -> None:
    known, correction = DelayHistory(), DelayCorrection()
    known.add(0, before)
    for delay, after in exposed:
        assert correction.exposed(known, delay, after) >= 1.0
    again = DelayCorrection.restore(correction.snapshot()), DelayHistory(known.snapshot())
    assert again[0].control(again[1], since) == correction.control(known, since) >= 1.0


def test_without_a_history_only_an_arm_that_reports_at_once_is_corrected() -> None:
    """Hours after a push began, reports within seconds look sooner than what is believed of any fleet."""
    at_once, later = DelayCorrection(), DelayCorrection()
    for number in range(10):
        quick = at_once.exposed(DelayHistory(), 5.0, 3600.0 + 60.0 * number)
        usual = later.exposed(DelayHistory(), 40.0, 120.0 + 10.0 * number)
    assert 1.5 < quick < 3.0
    assert usual == 1.0
    assert at_once.control(DelayHistory(), 2 * 86_400.0) == 1.0, "once all delays have passed"


def test_delays_fall_into_four_bins_a_doubling() -> None:
    assert delay_bin([-5, 0, 0.25, 0.26, 0.5, 1, 3600, 1e9]).tolist() == [0, 0, 0, 1, 4, 8, 56, BINS - 1]


def test_a_long_history_forgets_slowly_and_stays_bounded() -> None:
    known = history(5.0, 4000)
    known.add(0, np.full(50_000, 7200.0))
    assert sum(known.snapshot()[0]) < 60_000
    for _ in range(50):
        known.add(0, np.full(2000, 7200.0))
    assert sum(known.snapshot()[0]) <= 4096 + 2000
    assert known.within(60.0) < 0.01
    assert known.within(7200.0) > 0.99


def test_no_one_tenant_decides_how_late_everybody_is() -> None:
    """It tells thousands of crashes at once, to hide how late the others are, or a day late, to make them look so."""
    for lie in (0.1, 86_400.0):
        honest, lied = DelayHistory(), DelayHistory()
        for group in range(5):
            delays = np.random.default_rng(group).exponential(600.0, 60)
            honest.add(group, delays)
            lied.add(group, delays)
        lied.add(31, np.full(4000, lie))
        for seconds in (60.0, 300.0, 900.0):
            assert abs(lied.within(seconds) - honest.within(seconds)) < 0.1


def test_corrected_shares_stay_shares() -> None:
    assert corrected(np.array([0.0, 0.5, 1.0]), 10.0).tolist() == [0.0, 10 / 11, 1.0]
    # Rounding must not make a share of more than 1.
    assert (corrected(np.ones(1000), np.geomspace(1, 1e4, 1000)) == 1.0).all()


def test_the_examples_hold() -> None:
    assert doctest.testmod(detectors.delay).failed == 0
