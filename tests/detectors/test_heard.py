"""The share of the exposed that is heard from falls with silence, and never below for being told of a crash."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

import detectors.heard
from detectors.counts import CohortCounts
from detectors.exposure import ExposureBound
from detectors.heard import EXPOSED_LEAST, heard_share, share_heard
from ingest.rollouts import Bound, Ring, Rollout
from ingest.windows import AtRisk
from support.cohorts import T0, window

_FEW = st.integers(0, 5000)


def test_the_doctest_holds() -> None:
    assert doctest.testmod(detectors.heard).failed == 0


@given(exposed=_FEW, heard=_FEW, crashed=_FEW)
def test_it_is_a_share_or_nothing_where_few_are_exposed(exposed: int, heard: int, crashed: int) -> None:
    found = heard_share(exposed, heard, crashed)
    assert (found is None) == (max(exposed, heard + crashed) < EXPOSED_LEAST)
    assert found is None or 0.0 <= found <= 1.0


@given(exposed=st.integers(EXPOSED_LEAST, 5000), heard=_FEW, crashed=_FEW)
def test_silence_lowers_it_and_a_word_does_not(exposed: int, heard: int, crashed: int) -> None:
    def share(heard: int, crashed: int) -> float:
        found = heard_share(exposed, heard, crashed)
        assert found is not None
        return found

    if heard:
        assert share(heard - 1, crashed) <= share(heard, crashed)
        assert share(heard - 1, crashed + 1) == share(heard, crashed)


def test_it_counts_devices_of_stale_cells_and_those_beyond_as_silent() -> None:
    counts = CohortCounts([True], [True])
    bound = ExposureBound(None)
    assert share_heard(counts, 0, bound, T0) is None
    rows = [
        AtRisk("22631|laptop|early|old|recent", 3, 30, 500),
        AtRisk("22631|laptop|early|old|stale", 3, 40, 500),
        AtRisk("22631|desktop|early|old|recent|r-ab12", 4, 10, 500),
    ]
    counts.state(T0, [(0, window(full=True, at_risk=rows, exposed_total=100))])
    assert share_heard(counts, 10, bound, T0) == 0.5


@pytest.mark.parametrize(("minutes", "share"), [(24, None), (25, 0.0)])
def test_a_ring_that_was_to_be_pushed_and_of_which_nothing_is_known_is_not_heard(
    minutes: int, share: float | None
) -> None:
    """Ten minutes of push, then a quarter of an hour: whoever took it would have been heard of by now."""
    rings = [Ring(name="canary", starts_at_ms=T0, over_seconds=600), Ring(name="broad", starts_at_ms=T0 + 86_400_000)]
    bound = ExposureBound(
        Rollout(
            rollout="r-1",
            vendor="contoso",
            product="vpn",
            update_kind="driver",
            version="2",
            origin_ms=T0,
            bound=Bound.DECLARED,
            rings=rings,
        )
    )
    counts = CohortCounts([True], [True])
    assert share_heard(counts, 0, bound, T0 + minutes * 60_000) == share
    rows = [AtRisk("22631|laptop|canary|old|recent", 3, 1, 9)]
    counts.state(T0, [(0, window(full=True, at_risk=rows, exposed_total=1))])
    assert share_heard(counts, 0, bound, T0 + minutes * 60_000) is None
