"""What rivals outside the strata can feign: the bound holds, is reached, and keeps the evidence valid."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import detectors.confounding
from detectors.attribution import closed_log_evidence
from detectors.confounding import confounded_share, confounding_factor
from support.suspects import log_evidence, two

PATTERNS = st.integers(2, 4).flatmap(
    lambda size: st.tuples(
        st.lists(st.integers(0, 1000), min_size=size, max_size=size).filter(any),
        st.lists(st.integers(1, 1000), min_size=size, max_size=size),
        st.lists(st.floats(0, 1e6), min_size=size, max_size=size).filter(any),
    )
)


@given(PATTERNS)
def test_no_effect_of_the_rivals_feigns_more_than_the_factor(
    case: tuple[list[int], list[int], list[float]],
) -> None:
    exposed, control, effects = case
    rate = np.dot(exposed, effects) / sum(exposed)
    rate_control = np.dot(control, effects) / sum(control)
    assert rate <= confounding_factor(exposed, control) * rate_control * (1 + 1e-9)


@given(PATTERNS)
def test_some_effect_feigns_all_of_it(case: tuple[list[int], list[int], list[float]]) -> None:
    exposed, control, _ = case
    factor = confounding_factor(exposed, control)
    feigned = [(one / sum(exposed)) / (other / sum(control)) for one, other in zip(exposed, control, strict=True)]
    assert max(feigned) == pytest.approx(factor)


@given(st.floats(0, 1), st.floats(1, 1e6))
def test_the_raised_share_has_the_raised_odds(share: float, factor: float) -> None:
    raised = float(confounded_share([share], factor)[0])
    assert raised * (1 - share) == pytest.approx(factor * share * (1 - raised), rel=1e-6, abs=1e-9)
    assert share * (1 - 1e-12) <= raised <= 1.0


def test_a_rival_found_in_one_arm_only_takes_all_evidence_away() -> None:
    assert confounding_factor([5, 5], [10, 0]) == math.inf
    assert confounded_share([0.0, 0.2, 1.0], math.inf).tolist() == [1.0, 1.0, 1.0]
    # Devices without the rival, found in one arm only, do the same: a rival may cure.
    assert confounding_factor([5, 5], [0, 10]) == math.inf
    assert confounding_factor([0, 10], [5, 5]) == 2.0


def test_evidence_beside_an_unsplit_guilty_rival_is_valid_and_without_allowing_for_it_is_not() -> None:
    """The innocent is as bad as tolerated; its cells are not split by the guilty rival on half of its devices."""
    fleet, rng = two(0.3, 0.5, (1000.0, 1.5)), np.random.default_rng(1)
    runs, alpha = 400, 0.05
    crashes = fleet.draw(rng, (runs, 150))
    exposed, share = fleet.patterns[crashes, 1], np.full((runs, 150), fleet.marginal_share[1])
    factor = confounding_factor([0.15, 0.15], [0.55, 0.15])
    wrong = (log_evidence(exposed, confounded_share(share, factor)) >= -math.log(alpha)).any(axis=1).sum()
    assert binom.sf(int(wrong) - 1, runs, alpha) > 1e-3
    assert (log_evidence(exposed, share) >= -math.log(alpha)).any(axis=1).mean() > 0.5


def test_the_guilty_is_still_named_beside_an_unsplit_rival() -> None:
    fleet, rng = two(0.1, 0.5, (100.0, 1.0)), np.random.default_rng(2)
    crashes = fleet.draw(rng, (50, 150))
    factor = confounding_factor([0.05, 0.05], [0.85, 0.05])
    raised = confounded_share(np.full((50, 150), 0.1), factor)
    both = np.stack([log_evidence(fleet.patterns[crashes, one], raised) for one in (0, 1)], axis=-1)
    crossed = closed_log_evidence(both) >= math.log(1e6)
    assert crossed[:, :, 0].any(axis=1).all()
    assert not crossed[:, :, 1].any()


@pytest.mark.parametrize(
    ("exposed", "control", "message"),
    [
        ([1, 2], [1], "both for each"),
        ([], [], "both for each"),
        ([-1], [1], "negative"),
        ([0, 0], [1, 1], "no devices"),
    ],
)
def test_counts_that_are_none_are_refused(exposed: list[float], control: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confounding_factor(exposed, control)


def test_shares_that_are_none_are_refused() -> None:
    for share, factor, message in (([1.5], 2.0, "0 to 1"), ([math.nan], 2.0, "0 to 1"), ([0.5], 0.9, "below 1")):
        with pytest.raises(ValueError, match=message):
            confounded_share(share, factor)


def test_the_examples_hold() -> None:
    assert doctest.testmod(detectors.confounding).failed == 0
