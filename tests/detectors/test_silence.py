"""Silence with matched controls: validity, freezing and strata."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, nchypergeom_fisher

import detectors.silence
from detectors.exposure import ExposureBound
from detectors.sequential import ratio_grid
from detectors.silence import Silence, Stratum, log_likelihood_ratios
from detectors.strata import Strata
from ingest.rollouts import Bound, Ring
from support.cohorts import CELLS, T0, heard, rollout

OFFERED = ExposureBound(rollout(Bound.OFFERED))


def whole(strata: list[Stratum]) -> list[tuple[int, int, int, int]]:
    return [(one.exposed, one.control, one.silent_exposed, one.silent_control) for one in strata]


@st.composite
def strata(draw: st.DrawFn) -> Stratum:
    exposed, control = draw(st.integers(0, 60)), draw(st.integers(0, 60))
    return Stratum(exposed, control, draw(st.integers(0, exposed)), draw(st.integers(0, control)))


@given(strata())
def test_likelihood_ratios_are_those_of_fishers_distribution(stratum: Stratum) -> None:
    ratios = ratio_grid(1.5)[::8]
    silent = stratum.silent_exposed + stratum.silent_control
    found = log_likelihood_ratios(stratum, ratios, 1.5)
    if not 0 < silent < stratum.exposed + stratum.control or not stratum.exposed or not stratum.control:
        assert not found.any()
        return
    total = stratum.exposed + stratum.control
    low, high = max(0, silent - stratum.control), min(silent, stratum.exposed)
    # Only where SciPy's own mass is not lost to rounding.
    mass = [nchypergeom_fisher.pmf(stratum.silent_exposed, total, stratum.exposed, silent, r) for r in (*ratios, 1.5)]
    if low < high and min(mass) > 1e-9:
        assert found == pytest.approx(np.log(mass[:-1]) - math.log(mass[-1]), abs=1e-6)


def test_false_alarms_stay_within_alpha_under_odds_at_the_tolerated_ratio() -> None:
    rng = np.random.default_rng(3)
    alpha, paths, alarms = 1e-2, 400, 0
    for _ in range(paths):
        detector = Silence(1.5)
        for _ in range(12):
            quiet = rng.beta(1, 40)
            odds = 1.5 * quiet / (1 - quiet)
            sizes = int(rng.integers(5, 60)), int(rng.integers(20, 200))
            silent = rng.binomial(sizes[0], odds / (1 + odds)), rng.binomial(sizes[1], quiet)
            detector.update([Stratum(*sizes, int(silent[0]), int(silent[1]))])
        alarms += detector.maximum >= math.log(1 / alpha)
    assert binom.sf(alarms - 1, paths, alpha) > 1e-3


def test_picking_strata_by_their_quiet_controls_stays_harmless_at_the_limit() -> None:
    """Freezing looks at the controls: with the whole fleet exactly at the limit, alike arms must not be killed."""
    rng = np.random.default_rng(4)
    alarms, scored, frozen = 0, 0, 0
    for _ in range(200):
        detector = Silence(1.5, share_limit=0.1, control_least=100)
        for _ in range(40):
            silent = int(rng.binomial(100, 0.1)), int(rng.binomial(100, 0.1))
            detector.update([Stratum(100, 100, *silent)])
        alarms += detector.maximum >= math.log(100)
        scored, frozen = scored + detector.scored, frozen + detector.frozen
    assert min(scored, frozen) > 2000
    assert binom.sf(alarms - 1, 200, 0.01) > 1e-3


def test_a_wave_of_silence_in_both_arms_freezes() -> None:
    detector = Silence(1.5)
    detector.update([Stratum(50, 100, 20, 11)])
    assert (detector.frozen, detector.scored, detector.log_evidence) == (1, 0, 0.0)
    detector.update([Stratum(50, 100, 20, 10)])
    assert (detector.frozen, detector.scored) == (1, 1)
    assert detector.log_evidence > 0
    detector.update([Stratum(50, 99, 20, 50)])
    assert detector.scored == 2


@given(st.lists(strata(), max_size=12), st.integers(0, 12))
def test_a_restored_detector_goes_on_bit_for_bit(told: list[Stratum], cut: int) -> None:
    through, part = Silence(1.5), Silence(1.5)
    for index, one in enumerate(told):
        if index == cut:
            part = Silence.restore(part.snapshot())
        assert through.update([one]) == part.update([one])
    assert through.snapshot() == part.snapshot()


@pytest.mark.parametrize("bad", [Stratum(1, 1, 2, 0), Stratum(1, 1, 0, 2), Stratum(1, 1, -1, 0)])
def test_impossible_counts_are_refused(bad: Stratum) -> None:
    with pytest.raises(ValueError, match="silent devices"):
        Silence(1.5).update([bad])


def test_the_example_holds() -> None:
    assert doctest.testmod(detectors.silence).failed == 0


def test_a_minute_is_scored_once_with_all_partitions_together() -> None:
    gathered = Strata(900)
    for partition in (0, 1):
        gathered.add(partition, T0 + 60_000, [heard(T0, CELLS[0], (10, 90))])
    assert gathered.due(T0 + 960_000, OFFERED) == []
    for partition in (0, 1):
        gathered.add(partition, T0 + 960_000, [heard(T0, CELLS[0], (0, 0), (4, 1))])
    assert gathered.next_due_ms() == T0 + 965_000
    (minute,) = gathered.due(T0 + 965_000, OFFERED)
    assert whole(minute.strata) == [(20, 180, 8, 2)]
    assert gathered.due(T0 + 965_000, OFFERED) == []
    gathered.add(0, T0 + 990_000, [heard(T0, CELLS[0], (0, 0), (4, 1))])
    assert gathered.dropped == 1
    assert gathered.next_due_ms() is None


def test_a_declared_push_bounds_the_exposed_of_a_stratum() -> None:
    """Victims that never said a word count as control; the rule says how many of those may be exposed."""
    bound = ExposureBound(rollout(Bound.DECLARED, [Ring(name="early", starts_at_ms=T0, share=0.5)]))
    gathered = Strata(900)
    gathered.add(0, T0 + 60_000, [heard(T0, CELLS[0], (10, 90))])
    gathered.add(0, T0 + 960_000, [heard(T0, CELLS[0], (0, 0), (4, 1))])
    assert gathered.due(T0 + 965_000, bound)[0].strata == [Stratum(50, 50, 4, 1, {0: (0, 0, 0, 0)})]
    full = ExposureBound(rollout(Bound.DECLARED, [Ring(name="early", starts_at_ms=T0)]))
    gathered.add(0, T0 + 120_000, [heard(T0 + 60_000, CELLS[0], (10, 90))])
    gathered.add(0, T0 + 1_020_000, [heard(T0 + 60_000, CELLS[0], (0, 0), (4, 1))])
    (minute,) = gathered.due(T0 + 1_025_000, full)
    assert (minute.strata, minute.unbounded) == ([], 1)


def test_a_partition_that_said_no_second_word_is_left_out() -> None:
    gathered = Strata(900)
    for partition in (0, 1):
        gathered.add(partition, T0 + 60_000, [heard(T0, CELLS[0], (10, 90))])
    gathered.add(0, T0 + 960_000, [heard(T0, CELLS[0], (0, 0), (4, 1))])
    assert gathered.due(T0 + 965_000, OFFERED)[0].strata == [Stratum(10, 90, 4, 1, {0: (0, 0, 0, 0)})]


def test_gathered_strata_survive_a_restart() -> None:
    gathered = Strata(900)
    gathered.add(0, T0 + 60_000, [heard(T0, CELLS[0], (10, 90))])
    gathered.add(0, T0 + 960_000, [heard(T0, CELLS[0], (0, 0), (4, 1))])
    again = Strata.restore(gathered.snapshot(), 900)
    assert again.due(T0 + 965_000, OFFERED) == gathered.due(T0 + 965_000, OFFERED)


def test_cells_of_few_devices_are_compared_together_by_form_factor_and_ring() -> None:
    """By their sizes alone: a cell of eight devices stays by itself, whoever of them fell silent."""
    laptops = [f"{family}|laptop|early|old|recent" for family in ("22631", "19045")]
    server, large, rival = "20348|server|early|old|recent", "22621|laptop|early|old|recent", f"{laptops[0]}|r-b"
    sizes = {laptops[0]: (2, 3), laptops[1]: (3, 2), server: (1, 1), large: (4, 4), rival: (1, 2)}
    gathered = Strata(900)
    gathered.add(0, T0 + 60_000, [heard(T0, cell, both) for cell, both in sizes.items()])
    gathered.add(0, T0 + 960_000, [heard(T0, cell, (0, 0), (1, 0)) for cell in sizes])
    (minute,) = gathered.due(T0 + 965_000, OFFERED)
    assert sorted(whole(minute.strata)) == sorted([(5, 5, 2, 0), (1, 1, 1, 0), (4, 4, 1, 0), (1, 2, 1, 0)])
