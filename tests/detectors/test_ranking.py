"""The ranking for people: right where the counts tell, and honest where they don't."""

import doctest
import math

import numpy as np
import pytest

import detectors.ranking
from detectors.ranking import Stratum, rank


def _strata(
    rng: np.random.Generator,
    ratios: dict[str, float],
    seconds: dict[frozenset[str], float],
    cells: tuple[tuple[str, float], ...] = (("all", 1e-6),),
) -> list[Stratum]:
    """Draw Poisson crashes for every cell and set of updates."""
    return [
        Stratum(cell, on, int(rng.poisson(rate * time * math.prod(ratios[one] for one in on))), time)
        for cell, rate in cells
        for on, time in seconds.items()
    ]


def _sets(*names: str) -> list[frozenset[str]]:
    return [frozenset(name) for name in names]


OVERLAP = dict(zip(_sets("", "a", "b", "ab"), (4e7, 2e6, 2e6, 8e6), strict=True))


def test_the_fit_is_the_penalised_optimum() -> None:
    """The gradient of log likelihood and prior, written down independently, is nothing at the fit."""
    strata = _strata(np.random.default_rng(1), {"a": 20.0, "b": 2.0}, OVERLAP)
    found = {one.rollout: math.log(one.ratio) for one in rank(strata, ["a", "b"])}
    # The baseline's own optimum given the effects: crashes in all over time weighted by the effects.
    weighted = [one.device_seconds * math.exp(sum(found[name] for name in one.updates)) for one in strata]
    base = sum(one.crashes for one in strata) / math.fsum(weighted)
    for name, effect in found.items():
        seen = sum(one.crashes for one in strata if name in one.updates)
        fitted = math.fsum(base * time for one, time in zip(strata, weighted, strict=True) if name in one.updates)
        assert seen - fitted == pytest.approx(effect / math.log(10) ** 2, abs=1e-4)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    truth, runs, covered = {"a": 6.0, "b": 1.0}, 120, {"a": 0, "b": 0}
    for _ in range(runs):
        strata = _strata(rng, truth, OVERLAP, (("office", 2e-6), ("home", 5e-7)))
        for one in rank(strata, ["a", "b"]):
            covered[one.rollout] += one.low <= truth[one.rollout] <= one.high
    assert all(0.9 <= count / runs <= 0.995 for count in covered.values())


def test_the_guilty_comes_first_and_explains_the_crashes() -> None:
    strata = _strata(np.random.default_rng(3), {"a": 30.0, "b": 1.0}, OVERLAP)
    first, second = rank(strata, ["b", "a"])
    assert first.rollout == "a"
    assert first.low > 5
    assert second.low < 1 < second.high
    assert first.weight > 0.7 > 0.3 > second.weight
    assert first.confused_with == ()
    assert first.text.startswith("a: ")
    assert f"{first.weight:.0%} of them explained" in first.text


def test_five_with_two_guilty_are_ranked_right() -> None:
    rng = np.random.default_rng(4)
    ratios = {"a": 12.0, "b": 8.0, "c": 1.0, "d": 1.0, "e": 1.0}
    names = ["", "a", "b", "c", "d", "e", "ab", "cd", "ae", "bd", "abc", "cde", "abcde"]
    found = rank(_strata(rng, ratios, dict.fromkeys(_sets(*names), 6e6)), list("edcba"))
    assert {one.rollout for one in found[:2]} == {"a", "b"}
    assert all(one.low > 3 for one in found[:2])
    assert all(one.low < 1.3 for one in found[2:])


def test_cells_with_rates_of_their_own_do_not_speak_for_an_update() -> None:
    """The update went to a cell that crashes 50 times as often: within the cells it does nothing."""
    strata = [
        Stratum("lab", frozenset("a"), 90, 9e5),
        Stratum("lab", frozenset(), 10, 1e5),
        Stratum("office", frozenset("a"), 2, 1e6),
        Stratum("office", frozenset(), 198, 99e6),
    ]
    (split,) = rank(strata, ["a"])
    (pooled,) = rank([one._replace(cell="all") for one in strata], ["a"])
    assert split.low < 1 < split.high
    assert pooled.low > 10


def test_those_that_always_travel_together_share_the_blame_and_are_said_to_be_confused() -> None:
    strata = [Stratum("all", frozenset(), 10, 1e7), Stratum("all", frozenset("ab"), 400, 1e7)]
    one, other = sorted(rank(strata, ["a", "b"]), key=lambda ranked: ranked.rollout)
    assert one.ratio == pytest.approx(other.ratio, rel=1e-4)
    assert one.ratio * other.ratio == pytest.approx(40, rel=0.2)
    assert (one.confused_with, other.confused_with) == (("b",), ("a",))
    assert one.low < 1 < one.high
    assert "can't be told apart from b by these counts" in one.text
    # One crash of a device that has only one of them does not settle it, some dozens do.
    alone = [Stratum("all", frozenset("a"), 40, 1e6), Stratum("all", frozenset("b"), 1, 1e6)]
    assert all(not ranked.confused_with for ranked in rank(strata + alone, ["a", "b"]))


def test_a_rare_update_is_unknown_but_not_confused() -> None:
    strata = [
        Stratum("all", frozenset(), 10, 1e7),
        Stratum("all", frozenset("a"), 400, 1e7),
        Stratum("all", frozenset("b"), 0, 1e3),
    ]
    found = {one.rollout: one for one in rank(strata, ["a", "b"])}
    assert found["b"].confused_with == ()
    assert found["b"].high / found["b"].low > 1000


def test_without_crashes_only_the_prior_speaks() -> None:
    (found,) = rank([Stratum("all", frozenset("a"), 0, 1e6), Stratum("all", frozenset(), 0, 1e6)], ["a"])
    assert (found.ratio, found.weight) == (1.0, 0.0)
    assert found.high == pytest.approx(10**1.96, rel=1e-3)
    assert rank([Stratum("all", frozenset("a"), 3, 1e6)], []) == []


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_unit_of_time_does_not_matter(scale: float) -> None:
    strata = _strata(np.random.default_rng(5), {"a": 20.0, "b": 2.0}, OVERLAP)
    scaled = [one._replace(device_seconds=one.device_seconds * scale) for one in strata]
    for one, other in zip(rank(strata, ["a", "b"]), rank(scaled, ["a", "b"]), strict=True):
        assert one.ratio == pytest.approx(other.ratio, rel=1e-5)


def test_a_stratum_without_crashes_leaves_ratios_finite() -> None:
    """With no crash among the controls the ratio has no finite maximum: the prior holds it."""
    (found,) = rank([Stratum("all", frozenset("a"), 50, 1e6), Stratum("all", frozenset(), 0, 1e8)], ["a"])
    assert 100 < found.ratio < 1e5
    assert found.low > 10


@pytest.mark.parametrize(
    ("strata", "updates", "message"),
    [
        ([Stratum("all", frozenset("a"), 1, 0.0)], ["a"], "no device-time"),
        ([Stratum("all", frozenset("a"), 0, 0.0)], ["a"], "nothing to compare"),
        ([Stratum("all", frozenset("a"), -1, 1.0)], ["a"], "negative"),
        ([Stratum("all", frozenset("a"), 1, math.nan)], ["a"], "negative"),
        ([Stratum("all", frozenset("a"), 1, 1.0)], ["a", "a"], "once"),
        ([Stratum("all", frozenset("a"), 1, 1.0)], [str(number) for number in range(33)], "at most 32"),
        ([Stratum(str(number), frozenset(), 1, 1.0) for number in range(257)], ["a"], "cells"),
    ],
)
def test_counts_that_are_none_are_refused(strata: list[Stratum], updates: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank(strata, updates)


def test_the_example_holds() -> None:
    assert doctest.testmod(detectors.ranking).failed == 0
