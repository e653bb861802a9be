"""The peers that rest on a statistic: their arithmetic agrees with the references and their level holds."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, binom, mannwhitneyu

from detectors.backtest.peers.isolation_forest import IsolationForestRates
from detectors.backtest.peers.kayenta import Kayenta, high, judge, shift, without_outliers
from detectors.backtest.peers.multinomial import Multinomial
from support.minutes import BEGAN_MS, drawn, indices, minute, staged

# Ozone in New York in May and August 1973, the example of R's manual page of wilcox.test.
MAY = [41, 36, 12, 18, 28, 23, 19, 8, 7, 16, 11, 14, 18, 14, 34, 6, 30, 11, 1, 11, 4, 32, 23, 45, 115, 37]
AUGUST = [39, 9, 16, 78, 35, 66, 122, 89, 110, 44, 28, 65, 22, 59, 23, 31, 44, 21, 9, 45, 168, 73, 76, 118, 84, 85]
VALUES = st.lists(st.integers(0, 40), min_size=15, max_size=40)


def test_the_interval_is_that_of_r() -> None:
    """R 4: 95 percent confidence interval -52.99996 to -14.99998, difference in location -31.99996."""
    found = shift(np.array(MAY, dtype=float), np.array(AUGUST, dtype=float), confidence=0.95)
    assert found == pytest.approx((-52.99996, -31.99996, -14.99998), abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(VALUES, VALUES)
def test_the_interval_leaves_out_zero_where_the_test_rejects(x: list[int], y: list[int]) -> None:
    """Interval and test are two views of one statistic, ties and continuity correction included."""
    exposed, control = np.array(x, dtype=float), np.array(y, dtype=float)
    assume(len(np.unique(np.concatenate([exposed, control]))) > 1)
    lower, estimate, upper = shift(exposed, control)
    assert lower <= estimate <= upper
    p_value = float(mannwhitneyu(exposed, control, method="asymptotic").pvalue)
    if p_value > 0.02:
        assert lower <= 0 <= upper
    if lower > 0 or upper < 0:
        assert p_value <= 0.02


@settings(max_examples=30, deadline=None)
@given(VALUES, VALUES, st.integers(-20, 20))
def test_moving_one_arm_moves_the_interval(x: list[int], y: list[int], by: int) -> None:
    exposed, control = np.array(x, dtype=float), np.array(y, dtype=float)
    assume(len(np.unique(exposed)) > 1)
    moved = shift(exposed + by, control)
    assert moved == pytest.approx([end + by for end in shift(exposed, control)], abs=1e-9)


def test_the_tolerance_is_a_quarter_of_the_estimate() -> None:
    rng = np.random.default_rng(5)
    control = rng.normal(100, 10, 60)
    verdicts = []
    for by in np.arange(0, 40, 0.5):
        exposed = rng.permutation(control) + rng.normal(0, 10, 60) + by
        lower, estimate, _ = shift(exposed, control)
        verdicts.append((lower > 0.25 * abs(estimate), high(exposed, control) is not None))
    assert all(beyond == said for beyond, said in verdicts)
    assert {said for _, said in verdicts} == {True, False}


def test_outliers_go_beyond_three_ranges_and_the_percentiles() -> None:
    values = np.concatenate([np.arange(300.0), [10_000.0, 1e6, -1e6]])
    kept = without_outliers(values)
    assert kept.max() == 299.0
    assert kept.min() == 0.0
    # A hundred values or fewer have no value beyond their 99th percentile: nothing is an outlier.
    assert len(without_outliers(np.array([0.0] * 59 + [1e6]))) == 60


@pytest.mark.parametrize(
    ("exposed", "control"),
    [([0.1] * 60, [0.1] * 60), ([0.0] * 59 + [0.1], [0.0] * 60), ([0.3], [0.1]), ([0.1, 0.2], [0.2, 0.1])],
    ids=["constant", "one crash", "one value each", "the same values"],
)
def test_what_is_not_high(exposed: list[float], control: list[float]) -> None:
    assert high(np.array(exposed), np.array(control)) is None


def test_two_constants_differ_by_their_difference() -> None:
    assert high(np.full(60, 0.2), np.full(60, 0.1)) is not None
    assert high(np.full(60, 0.1), np.full(60, 0.2)) is None


def test_one_metric_of_two_fails_the_canary_and_none_gives_no_score() -> None:
    """The same devices crash in both arms, but each exposed one ten times: one metric is High, the score 50."""
    stage = [minute(i, active=(200, 200), crashes=(20 + i % 3, 2), users=(2 + i % 2, 2 + i % 2)) for i in range(60)]
    score, sentence = judge(stage)
    assert score == 50.0
    assert "crashes per active device High" in sentence
    assert judge([minute(i, active=(0, 200)) for i in range(60)]) == (None, "")


def test_an_analysis_that_passed_is_forgotten_after_three_hours() -> None:
    """Harm of hours 4 and later is judged by itself: had the first three counted, hour 4 could not tell."""
    minutes = [minute(i, active=(200, 200), crashes=(20 if i >= 180 else 2 + i % 2, 2 + i % 2)) for i in range(300)]
    assert indices(minutes, [alarm.at_ms for alarm in Kayenta().watch(minutes, BEGAN_MS)]) == [239]


@pytest.mark.parametrize(("exposed", "control"), [(0, 7), (3, 5), (9, 2)])
def test_the_bayes_factor_is_the_closed_form(exposed: int, control: int) -> None:
    """Beta-binomial over binomial; the alarm's sentence carries the factor."""
    share = 0.01
    log_e = betabinom.logpmf(exposed, exposed + control, 1, 1) - binom.logpmf(exposed, exposed + control, share)
    alarms = Multinomial().watch([minute(0, exposed=100, control=9900, crashes=(exposed, control))], BEGAN_MS)
    assert bool(alarms) == (log_e >= math.log(20) and exposed > 0)
    if alarms:
        assert f"10^{log_e / math.log(10):.1f} " in alarms[0].sentence


def test_the_multinomial_level_holds_while_the_shares_grow() -> None:
    runs, alarms = 200, 0
    for seed in range(runs):
        minutes = drawn(seed, count=320, background=2e-5, devices=5000)
        alarms += bool(Multinomial().watch(minutes, BEGAN_MS))
    # As many alarms would be seen in fewer than one of a thousand such tests if alpha = 0.05 were exceeded.
    assert binom.sf(alarms - 1, runs, 0.05) > 1e-3


def test_the_multinomial_is_not_told_of_cells() -> None:
    """The level test can fail: exposed devices of a frailer kind make false alarms."""
    minutes = drawn(7, count=400, ratio=lambda index: 3.0, background=2e-5, share=lambda index: staged(index) + 0.1)
    assert Multinomial().watch(minutes, BEGAN_MS)


def test_a_cure_is_no_alarm() -> None:
    minutes = [minute(i, exposed=5000, control=5000, crashes=(0, 3)) for i in range(100)]
    assert Multinomial().watch(minutes, BEGAN_MS) == []


class TestIsolationForest:
    @pytest.mark.parametrize(("harmed_from", "fired"), [(0, [64]), (60, [64]), (65, [69]), (600, [])])
    def test_the_first_hour_is_for_learning(self, harmed_from: int, fired: list[int]) -> None:
        minutes = [
            minute(
                i,
                exposed=5000,
                control=5000,
                active=(1000, 1000),
                crashes=(500 if i >= harmed_from else 20 + i // 5 % 3, 20 + i // 5 % 7),
            )
            for i in range(120)
        ]
        found = [alarm.at_ms for alarm in IsolationForestRates().watch(minutes, BEGAN_MS)]
        assert indices(minutes, found) == fired

    def test_fewer_crashes_than_usual_are_no_alarm(self) -> None:
        minutes = [minute(i, active=(1000, 1000), crashes=(0, 20 + i // 5 % 7)) for i in range(240)]
        assert IsolationForestRates().watch(minutes, BEGAN_MS) == []
