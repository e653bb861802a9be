"""Harm in one corner: mixing stays valid, weights stay put, and a corner is heard."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import detectors.margins
from detectors.margins import MARGINS_MAX, MarginEvents, MarginRatios
from detectors.tenants import NOBODY, ROWS, TenantRatio

NAMES = [f"model={letter}" for letter in "abcdef"]


def feed(mixed: MarginRatios, arms: list[bool], share: float, names: list[str], groups: list[int]) -> float:
    """Score crashes, each in one margin; return the log evidence, nobody left out."""
    shares = np.full((len(arms), ROWS), share)
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    events = [MarginEvents(name, np.array(where), shares[where]) for name, where in places.items()]
    path = mixed.update(np.array(arms), shares, np.array(groups), events)
    assert path[-1].tobytes() == mixed.log_evidence.tobytes()
    return float(path[-1, NOBODY])


CRASHES = st.lists(st.tuples(st.booleans(), st.sampled_from(NAMES), st.integers(0, 3)), min_size=1, max_size=30)


@given(CRASHES, st.integers(0, 30), st.integers(0, 6))
def test_a_restored_mixture_goes_on_bit_for_bit(crashes: list[tuple[bool, str, int]], cut: int, met: int) -> None:
    through, part = MarginRatios(), MarginRatios()
    for mixed in (through, part):
        mixed.meet(NAMES[:met])
    for index, (arm, name, group) in enumerate(crashes):
        if index == cut:
            part = MarginRatios.restore(part.snapshot())
        assert feed(through, [arm], 0.2, [name], [group]) == feed(part, [arm], 0.2, [name], [group])
    assert through.snapshot() == part.snapshot()


@given(st.lists(st.integers(0, 400), max_size=500), st.integers(0, 300))
def test_weights_never_sum_to_more_than_one_and_never_change(names: list[int], before: int) -> None:
    mixed = MarginRatios()
    mixed.meet(str(number) for number in range(before))
    feed(mixed, [True], 0.5, ["0"], [0])
    first = dict(mixed.snapshot().weights)
    mixed.meet(map(str, names))
    weights = mixed.snapshot().weights
    assert math.fsum(weights.values()) <= 1 + 1e-9
    assert len(weights) <= MARGINS_MAX
    assert all(weights[name] == weight for name, weight in first.items())


def test_false_alarms_stay_within_alpha_at_the_tolerated_ratio() -> None:
    rng = np.random.default_rng(5)
    alpha, paths, alarms = 0.02, 300, 0
    for _ in range(paths):
        mixed = MarginRatios(1.5)
        mixed.meet(NAMES)
        odds = 1.5 * 0.2 / 0.8
        x = rng.random(80) < odds / (1 + odds)
        shares = np.full((80, ROWS), 0.2)
        which = rng.integers(0, 6, 80)
        events = [MarginEvents(NAMES[m], np.flatnonzero(which == m), shares[which == m]) for m in range(6)]
        path = mixed.update(x, shares, rng.integers(0, 8, 80), events)
        alarms += bool(path[:, NOBODY].max() >= math.log(1 / alpha))
    assert binom.sf(alarms - 1, paths, alpha) > 1e-3


def test_harm_in_one_corner_is_heard_where_the_pooled_evidence_is_deaf() -> None:
    """Every exposed crash of one model in twenty is harm; the others crash as the share says."""
    rng = np.random.default_rng(6)
    mixed, pooled = MarginRatios(1.5), TenantRatio(1.5)
    models = [f"model={number}" for number in range(20)]
    mixed.meet(models)
    counts = []
    for number in range(2000):
        model = number % 20
        arm = bool(rng.random() < (0.92 if model == 0 else 0.1))
        shares = np.full((1, ROWS), 0.1)
        pooled.update([arm], shares, [number % 7])
        if feed(mixed, [arm], 0.1, [models[model]], [number % 7]) >= math.log(1e6):
            counts.append(number)
            break
    assert counts
    assert counts[0] < 300
    assert pooled.log_evidence[NOBODY] < math.log(1e3)
    loudest = mixed.loudest()
    assert loudest is not None
    assert loudest[0] == "model=0"


def test_harm_everywhere_costs_a_factor_of_two_at_most() -> None:
    mixed, pooled = MarginRatios(1.5), TenantRatio(1.5)
    for number in range(12):
        feed(mixed, [True], 0.1, [NAMES[number % 6]], [number % 7])
        pooled.update([True], np.full((1, ROWS), 0.1), [number % 7])
    assert mixed.log_evidence[NOBODY] >= pooled.log_evidence[NOBODY] - math.log(2) - 1e-9


def test_nothing_scored_is_no_evidence() -> None:
    mixed = MarginRatios()
    mixed.meet(NAMES)
    assert mixed.update(np.zeros(0, dtype=bool), np.zeros((0, ROWS)), np.zeros(0, dtype=np.int64), []).shape == (
        0,
        ROWS,
    )
    assert mixed.log_evidence == pytest.approx(np.zeros(ROWS), abs=1e-12)
    assert mixed.loudest() is None


def test_the_example_holds() -> None:
    assert doctest.testmod(detectors.margins).failed == 0
