"""Attribution on seeded fleets with a known guilty: the right one is named, the wrong one within alpha."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from detectors.attribution import Attributor, Finding, Guilt, closed_log_evidence
from support.suspects import Suspects, independent, rider, two

_RUNS_AT_ONCE = 50


def _named(
    fleet: Suspects, rng: np.random.Generator, runs: int, crashes: int, alpha: float
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Return after how many crashes each suspect was named, looking after each; 0 for never: shape (runs, suspects)."""
    rows = []
    for _ in range(0, runs, _RUNS_AT_ONCE):
        closed = closed_log_evidence(fleet.log_conditional(fleet.draw(rng, (_RUNS_AT_ONCE, crashes))))
        crossed = closed >= -math.log(alpha)
        rows.append(np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, 0))
    return np.concatenate(rows)


def _judged(fleet: Suspects, rng: np.random.Generator, crashes: int, every: int) -> list[list[Finding]]:
    """Return the findings of one run through the streaming objects, looked at every so many crashes."""
    drawn, attributor = fleet.draw(rng, (crashes,)), Attributor()
    looks = range(every, crashes + 1, every)
    return [attributor.update(fleet.suspects(drawn[:seen], 1e-6), fleet.both()) for seen in looks]


def test_the_fleets_evidence_is_that_of_the_streaming_objects() -> None:
    """The fast formula that the tests below count with is the product's."""
    fleet = independent([0.3, 0.2, 0.4], [20.0, 1.0, 3.0])
    drawn = fleet.draw(np.random.default_rng(1), (120,))
    fast = fleet.log_conditional(drawn[None])[0]
    for seen in (1, 40, 120):
        streamed = [one.log_conditional for one in fleet.suspects(drawn[:seen], 1e-6)]
        assert streamed == pytest.approx(fast[seen - 1].tolist(), abs=1e-9)


@pytest.mark.parametrize(("overlap", "most"), [(0.5, 20), (0.9, 90), (0.99, 800)])
def test_the_guilty_of_two_is_named_and_the_innocent_is_not(overlap: float, most: int) -> None:
    """At ratio 100 on a tenth of the fleet; every run names the guilty, in the crashes that the README prints."""
    fleet = two(0.1, overlap, (100.0, 1.0))
    named = _named(fleet, np.random.default_rng(2), 100, 4 * most, 1e-6)
    assert (named[:, 0] > 0).all()
    assert float(named[:, 0].mean()) < most
    assert not named[:, 1].any()


def test_two_that_always_travel_together_are_held_and_neither_is_ever_named() -> None:
    fleet = two(0.1, 1.0, (100.0, 1.0))
    assert not _named(fleet, np.random.default_rng(3), 50, 2000, 0.05).any()
    for findings in _judged(fleet, np.random.default_rng(4), 400, 40):
        assert [one.guilt for one in findings] == [Guilt.INSEPARABLE] * 2
        assert findings[0].group == ("r0", "r1")


@pytest.mark.parametrize(
    ("fleet", "innocent"),
    [
        (two(0.3, 0.5, (100.0, 1.5)), [1]),
        (two(0.3, 0.9, (10.0, 1.5)), [1]),
        (two(0.3, 0.99, (100.0, 1.5)), [1]),
        (two(0.3, 0.5, (1.5, 1.5)), [0, 1]),
        (rider(0.3, 0.5, (100.0, 1.5)), [1]),
        (rider(0.3, 0.5, (1.5, 100.0)), [0]),
        (independent([0.3, 0.2, 0.4, 0.1, 0.3], [20.0, 20.0, 1.5, 1.5, 1.5]), [2, 3, 4]),
    ],
    ids=["half", "90 %", "99 %", "none guilty", "innocent rider", "guilty rider", "five with two"],
)
def test_any_wrong_one_is_named_in_at_most_alpha_of_the_runs(fleet: Suspects, innocent: list[int]) -> None:
    """Innocents are as bad as tolerated, which is their worst; somebody looks after every crash."""
    alpha, runs = 0.05, 500
    named = _named(fleet, np.random.default_rng(5), runs, 150, alpha)
    wrong = int(named[:, innocent].any(axis=1).sum())
    assert binom.sf(wrong - 1, runs, alpha) > 1e-3


def test_without_splitting_the_innocent_is_named_in_most_runs() -> None:
    """The test above can fail: it does if the cells of the innocent are not split by the guilty."""
    fleet = two(0.3, 0.9, (100.0, 1.0))
    fleet.share[:, 1] = fleet.marginal_share[1]
    assert (_named(fleet, np.random.default_rng(6), 50, 150, 0.05)[:, 1] > 0).mean() > 0.9


def test_two_guilty_of_five_are_both_named() -> None:
    fleet = independent([0.3, 0.2, 0.4, 0.1, 0.3], [20.0, 20.0, 1.0, 1.0, 1.0])
    named = _named(fleet, np.random.default_rng(7), 100, 400, 1e-6)
    assert (named[:, :2] > 0).all()
    assert not named[:, 2:].any()
    assert float(named[:, :2].max(axis=1).mean()) < 160


@pytest.mark.parametrize(("ratios", "guilty"), [((100.0, 1.0), 0), ((1.0, 100.0), 1)])
def test_content_that_rides_on_a_driver_and_the_driver_are_told_apart(ratios: tuple[float, float], guilty: int) -> None:
    fleet = rider(0.2, 0.6, ratios)
    last = _judged(fleet, np.random.default_rng(8), 200, 200)[-1]
    assert last[guilty].guilt is Guilt.GUILTY
    assert last[1 - guilty].guilt is not Guilt.GUILTY


def test_an_innocent_on_most_of_the_guiltys_devices_is_held_first_and_then_cleared() -> None:
    fleet = two(0.1, 0.9, (100.0, 1.0))
    story = [one[1].guilt for one in _judged(fleet, np.random.default_rng(9), 300, 10)]
    assert Guilt.UNCLEAR in story
    assert story[-1] is Guilt.INNOCENT
    assert Guilt.GUILTY not in story


def test_the_weaker_of_two_guilty_is_hardly_ever_cleared_and_named_later() -> None:
    """The stronger one's crashes must not excuse it for good."""
    fleet = two(0.3, 0.5, (200.0, 6.0))
    rng = np.random.default_rng(10)
    stories = [[one[1].guilt for one in _judged(fleet, rng, 240, 30)] for _ in range(12)]
    assert all(story[-1] is Guilt.GUILTY for story in stories)
    assert sum(Guilt.INNOCENT in story for story in stories) <= 1
