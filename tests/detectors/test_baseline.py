"""The known baseline: history needed, validity under the spread between rollouts, and freezing."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import detectors.baseline
from detectors.baseline import WINDOWS, Baseline, PastRollout, age_window
from detectors.tenants import NOBODY

STRETCHES = st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e6)), max_size=20)


def past(crashes: int, seconds: float = 1e6) -> PastRollout:
    return PastRollout((crashes, 0, 0, 0, 0), (seconds, 0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("history", "hold", "kill"),
    [(0, False, False), (2, False, False), (3, True, False), (19, True, False), (20, True, True)],
)
def test_history_decides_what_the_evidence_may_do(history: int, hold: bool, kill: bool) -> None:
    detector = Baseline([past(2)] * history)
    assert (detector.can_hold, detector.can_kill) == (hold, kill)
    for _ in range(50):
        detector.update(0, {0: 1}, {0: 1000.0})
    assert (detector.log_evidence > 0) is hold


def test_false_alarms_stay_within_alpha_though_rollouts_differ() -> None:
    """Rates vary between rollouts by a gamma factor; the tested ratio lies far above the worst of the past."""
    rng = np.random.default_rng(5)
    alpha, paths, alarms = 1e-2, 800, 0
    for _ in range(paths):
        history = [past(int(rng.poisson(5 * rng.gamma(2, 0.5)))) for _ in range(25)]
        detector = Baseline(history)
        rate = 5e-6 * rng.gamma(2, 0.5)
        for _ in range(40):
            detector.update(0, {0: int(rng.poisson(rate * 1e5))}, {0: 1e5})
        alarms += detector.maximum >= math.log(1 / alpha)
    assert binom.sf(alarms - 1, paths, alpha) > 1e-3


def test_a_rollout_as_bad_as_july_19_is_found_without_any_control() -> None:
    detector = Baseline([past(5)] * 30)
    needed = [n for n in range(1, 60) if detector.update(0, {0: 1}, {0: 100.0}) >= math.log(1e6)]
    assert needed[0] <= 8


def test_the_tested_ratio_lies_above_twice_the_worst_of_the_past() -> None:
    detector = Baseline([*[past(4)] * 20, past(40)], tolerated_ratio=1.5)
    assert detector.worst_ratio > 5
    assert detector.tested_ratio == pytest.approx(1.5 * 2 * detector.worst_ratio)
    assert detector.shape < 10


def test_a_shock_that_others_see_is_no_evidence() -> None:
    detector = Baseline([past(2)] * 20)
    for _ in range(30):
        detector.update(0, {0: 1}, {0: 100.0}, frozen=True)
    assert (detector.log_evidence, detector.frozen) == (0.0, 30)


def test_an_age_that_no_past_rollout_reached_is_no_evidence() -> None:
    detector = Baseline([past(2)] * 20)
    detector.update(4, {0: 20}, {0: 100.0})
    assert detector.log_evidence == 0.0


@given(STRETCHES, st.integers(0, 20))
def test_a_restored_detector_goes_on_bit_for_bit(stretches: list[tuple[int, float]], cut: int) -> None:
    through, part = Baseline([past(2)] * 20), Baseline([past(2)] * 20)
    for index, (crashes, seconds) in enumerate(stretches):
        if index == cut:
            part = Baseline.restore(part.snapshot())
        assert through.update(0, {1: crashes}, {1: seconds}) == part.update(0, {1: crashes}, {1: seconds})
        assert through.rows.tobytes() == part.rows.tobytes()
    assert through.snapshot() == part.snapshot()


@pytest.mark.parametrize(("crashes", "seconds"), [(-1, 1.0), (1, -1.0), (1, math.nan)])
def test_impossible_numbers_are_refused(crashes: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Baseline([past(1)] * 20).update(0, {0: crashes}, {0: seconds})


@pytest.mark.parametrize(("hours", "window"), [(0, 0), (0.99, 0), (1, 1), (6, 2), (24, 3), (72, 4), (9999, 4)])
def test_ages_fall_into_windows(hours: float, window: int) -> None:
    assert age_window(hours * 3600) == window
    assert window < WINDOWS


def test_the_example_holds() -> None:
    assert doctest.testmod(detectors.baseline).failed == 0


def test_a_group_that_lies_about_the_past_and_the_present_is_left_out_of_its_own_row() -> None:
    """Group 3 invents a terrible past to hide harm, or crashes to cause a kill: its row knows nothing of either."""
    zeros = (0.0,) * 4
    honest = past(2)
    lied = PastRollout((902, 0, 0, 0, 0), (2e6, *zeros), {3: ((900, 0, 0, 0, 0), (1e6, *zeros))})
    hidden, clean = Baseline([lied] * 20), Baseline([honest] * 20)
    assert hidden.tested_ratio == pytest.approx(clean.tested_ratio)
    for detector in (hidden, clean):
        for _ in range(10):
            detector.update(0, {0: 1}, {0: 100.0})
    assert hidden.rows[3] == pytest.approx(clean.rows[NOBODY])
    assert hidden.rows[NOBODY] < hidden.rows[3] / 2
    forged = Baseline([honest] * 20)
    for _ in range(30):
        forged.update(0, {3: 1}, {0: 1000.0, 3: 10.0})
    assert forged.rows[NOBODY] > math.log(1e6)
    assert forged.rows[3] <= 0
