"""Bounds of a rate ratio that hold at any moment: right in all but alpha of the runs, whole over a restore."""

import doctest
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import detectors.ratio_bounds
from detectors.ratio_bounds import RatioBounds, RatioBoundsState

EVENTS = st.lists(st.tuples(st.booleans(), st.floats(0.0, 1.0), st.floats(0.0, 1.0)), min_size=1, max_size=40)


def _add(bounds: RatioBounds, events: list[tuple[bool, float, float]]) -> None:
    shares = [sorted(both) for _, *both in events]
    bounds.update([x for x, *_ in events], [high for _, high in shares], [low for low, _ in shares])


@given(EVENTS, st.integers(0, 40))
def test_a_batch_gives_what_its_events_give_and_a_restore_goes_on_bit_for_bit(
    events: list[tuple[bool, float, float]], cut: int
) -> None:
    batch, single = RatioBounds(), RatioBounds()
    _add(batch, events)
    for index, event in enumerate(events):
        if index == cut:
            packed = msgspec.msgpack.encode(single.snapshot())
            single = RatioBounds.restore(msgspec.msgpack.decode(packed, type=RatioBoundsState))
        _add(single, [event])
    assert batch.snapshot() == single.snapshot()


@pytest.mark.parametrize("ratio", [0.25, 1.5, 8.0])
def test_bounds_are_wrong_at_any_time_in_at_most_alpha_of_the_runs(ratio: float) -> None:
    rng = np.random.default_rng(5)
    alpha, runs, low, high = 0.1, 600, 0, 0
    for _ in range(runs):
        share = rng.uniform(0.05, 0.9, size=200)
        bounds = RatioBounds(alpha)
        bounds.update(rng.random(200) < ratio * share / (ratio * share + 1 - share), share, share)
        # Bounds only tighten, so the last ones tell whether they were wrong at any time.
        low, high = low + (bounds.low > ratio), high + (bounds.high < ratio)
    assert binom.sf(low - 1, runs, alpha) > 1e-3
    assert binom.sf(high - 1, runs, alpha) > 1e-3


def test_bounds_close_in_on_the_ratio() -> None:
    rng = np.random.default_rng(6)
    bounds = RatioBounds()
    share = rng.uniform(0.05, 0.6, size=3000)
    bounds.update(rng.random(3000) < 5 * share / (5 * share + 1 - share), share, share)
    assert 3.5 < bounds.low < 5 < bounds.high < 7


def test_a_share_that_is_known_less_well_only_widens_the_bounds() -> None:
    rng = np.random.default_rng(8)
    exposed = rng.random(300) < 0.5
    exact, vague = RatioBounds(), RatioBounds()
    exact.update(exposed, np.full(300, 0.4), np.full(300, 0.4))
    vague.update(exposed, np.full(300, 0.5), np.full(300, 0.3))
    assert vague.low < exact.low < exact.high < vague.high


def test_one_sided_crashes_and_none_set_no_false_limit() -> None:
    none, every, never = RatioBounds(), RatioBounds(), RatioBounds()
    every.update([True] * 50, [0.1] * 50, [0.1] * 50)
    never.update([False] * 50, [0.9] * 50, [0.9] * 50)
    assert (none.low, none.high) == (0.0, math.inf)
    assert every.low > 10
    assert every.high == math.inf
    assert never.low == 0.0
    assert never.high < 0.2


@pytest.mark.parametrize(
    ("share", "low"), [([0.5], [0.6]), ([1.1], [0.5]), ([0.5], [-0.1]), ([math.nan], [0.1]), ([0.5, 0.5], [0.1])]
)
def test_events_that_are_none_are_refused_whole(share: list[float], low: list[float]) -> None:
    bounds = RatioBounds()
    with pytest.raises(ValueError, match="share"):
        bounds.update([True], share, low)
    assert bounds.snapshot() == RatioBounds().snapshot()
    with pytest.raises(ValueError, match="alpha"):
        RatioBounds(1.0)


def test_the_examples_hold() -> None:
    assert doctest.testmod(detectors.ratio_bounds).failed == 0
