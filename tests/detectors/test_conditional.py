"""One suspect's conditional evidence and the bounds of its ratio."""

import doctest
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import detectors.conditional
import detectors.ratio_bounds
from detectors.conditional import OTHER, STRATA_MAX, ConditionalRatio, ConditionalRatioState
from detectors.ratio_bounds import RatioBounds

EVENTS = st.lists(
    st.tuples(st.booleans(), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.sampled_from(["", "a", "a+b"])),
    min_size=1,
    max_size=40,
)


def _add(suspect: ConditionalRatio, events: list[tuple[bool, float, float, str]]) -> None:
    suspect.update(
        [x for x, *_ in events],
        [max(one, other) for _, one, other, _ in events],
        [name for *_, name in events],
        [min(one, other) for _, one, other, _ in events],
    )


@given(EVENTS)
def test_a_batch_gives_bit_for_bit_what_its_events_give(events: list[tuple[bool, float, float, str]]) -> None:
    batch, single = ConditionalRatio(), ConditionalRatio()
    _add(batch, events)
    for event in events:
        _add(single, [event])
    assert batch.snapshot() == single.snapshot()


@given(EVENTS, st.integers(0, 40))
def test_a_restored_suspect_goes_on_bit_for_bit(events: list[tuple[bool, float, float, str]], cut: int) -> None:
    through, part = ConditionalRatio(), ConditionalRatio()
    for index, event in enumerate(events):
        if index == cut:
            packed = msgspec.msgpack.encode(part.snapshot())
            part = ConditionalRatio.restore(msgspec.msgpack.decode(packed, type=ConditionalRatioState))
        _add(through, [event])
        _add(part, [event])
        assert through.log_evidence == part.log_evidence
        assert (through.bounds.low, through.bounds.high) == (part.bounds.low, part.bounds.high)
    assert through.snapshot() == part.snapshot()


def test_a_snapshot_is_not_changed_by_what_follows() -> None:
    suspect = ConditionalRatio()
    suspect.update([True], [0.5], ["a"])
    state = suspect.snapshot()
    kept = msgspec.json.encode(state)
    suspect.update([True], [0.5], ["a"])
    assert msgspec.json.encode(state) == kept


def test_strata_are_told_apart_and_bounded() -> None:
    suspect = ConditionalRatio()
    suspect.update([True, False, True], [0.5, 0.5, 1.0], ["a", "a", "b"])
    assert suspect.strata["a"].exposed == suspect.strata["a"].control == 1
    assert suspect.strata["a"].expected == 1.0
    # Where all devices are on the suspect, a crash tells nothing.
    assert suspect.telling == 2
    for number in range(2 * STRATA_MAX):
        suspect.update([True], [0.5], [f"s{number}"])
    assert len(suspect.strata) == STRATA_MAX
    assert sum(tally.exposed for tally in suspect.strata.values()) == 2 + 2 * STRATA_MAX
    assert suspect.strata[OTHER].exposed > 1


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
    suspect = ConditionalRatio()
    with pytest.raises(ValueError, match="share"):
        suspect.update([True], share, ["a"], low)
    assert suspect.snapshot() == ConditionalRatio().snapshot()
    with pytest.raises(ValueError, match="one per event"):
        suspect.update([True], [0.5], [])
    with pytest.raises(ValueError, match="alpha"):
        RatioBounds(1.0)


def test_the_examples_hold() -> None:
    assert doctest.testmod(detectors.conditional).failed == 0
    assert doctest.testmod(detectors.ratio_bounds).failed == 0
