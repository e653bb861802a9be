"""The statistics of one pair: exact against SciPy, valid by simulation, quiet where nothing can be told."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, nchypergeom_fisher

from detectors.pairs import (
    CRASHES_MAX,
    Table,
    expected_crashes,
    interval,
    log_evidence,
    log_likelihood,
    stands,
)

counts = st.integers(0, 60)
days = st.floats(0.1, 1e5)
tables = st.builds(Table, st.tuples(counts, counts, counts, counts), st.tuples(days, days, days, days))


def odds_of(table: Table) -> float:
    d = table.device_days
    return d[0] * d[3] / (d[1] * d[2])


@settings(max_examples=60, deadline=None)
@given(st.tuples(counts, counts, counts, counts), st.floats(0.05, 20), st.floats(0.1, 10))
def test_the_likelihood_is_fishers_noncentral_hypergeometric(
    crashes: tuple[int, int, int, int], odds: float, ratio: float
) -> None:
    table = Table(crashes, (odds, 1.0, 1.0, 1.0))
    total, rows, columns = sum(crashes), crashes[0] + crashes[1], crashes[0] + crashes[2]
    if not total:
        assert log_likelihood(table, np.array([ratio]))[0] == 0.0
        return
    reference = nchypergeom_fisher(total, rows, columns, odds * ratio)
    assert log_likelihood(table, np.array([ratio]))[0] == pytest.approx(
        reference.logpmf(crashes[0]), abs=1e-6, rel=1e-6
    )


def test_expected_crashes_multiply_the_other_parts_rates() -> None:
    expected = expected_crashes(Table((105, 30, 30, 300), (10.0, 20.0, 30.0, 400.0)))
    assert expected == pytest.approx(10.0 * (30.5 / 20.0) * (30.5 / 30.0) / (300.5 / 400.0))
    assert expected_crashes(Table((0, 0, 0, 0), (1.0, 1.0, 1.0, 1.0))) == 0.5


@pytest.mark.parametrize(
    ("pair", "alone", "level", "neither"),
    [
        (1.25 * 3, 3, 3, 3),  # At the limit of the multiplication.
        (1.25, 1, 1, 1),
        (1.25 * 30, 30, 0.3, 0.3),  # A bad version everywhere.
        (1.25 * 8, 8, 8, 0.5),  # Worse than neither alone by much, though both together multiply to more.
        (1.25 * 30 * 8 / 2, 30, 8, 2),  # Both bad by themselves: worse together, no interaction.
    ],
)
def test_evidence_keeps_its_promise(pair: float, alone: float, level: float, neither: float) -> None:
    draw = np.random.default_rng(17)
    drawn = draw.poisson([pair, alone, level, neither], size=(3000, 4)).tolist()
    beyond = [math.exp(log_evidence([Table(tuple(x), (10.0, 10.0, 10.0, 10.0))]).beyond) for x in drawn]
    mean, error = float(np.mean(beyond)), float(np.std(beyond)) / math.sqrt(len(beyond))
    assert mean - 3 * error <= 1.0
    assert np.mean(np.array(beyond) >= 20) <= 0.05
    if pair <= 1.25 * max(alone, level):
        assert np.mean([log_evidence([Table(tuple(x), (1.0,) * 4)]).worse >= math.log(20) for x in drawn]) <= 0.05


def test_strata_add_up_and_confounding_between_them_is_no_evidence() -> None:
    """Servers crash ten times as often and run the pair more: pooled it looks guilty, stratum by stratum it is not."""
    laptops = Table((1, 10, 10, 100), (100.0, 1000.0, 1000.0, 10_000.0))
    servers = Table((1000, 100, 100, 10), (10_000.0, 1000.0, 1000.0, 100.0))
    pooled = Table((1001, 110, 110, 110), (10_100.0, 2000.0, 2000.0, 10_100.0))
    assert log_evidence([pooled]).worse > math.log(20)
    assert log_evidence([laptops, servers]).worse < 0
    estimate, low, high = interval([laptops, servers])
    assert estimate == pytest.approx(1.0, abs=0.01)
    assert high is not None
    assert low < 1 < high


def test_evidence_grows_with_harm_and_needs_both_comparisons() -> None:
    harmful = log_evidence([Table((200, 40, 45, 400), (1e3, 1e3, 1e3, 1e4))])
    assert harmful.beyond > math.log(1000)
    assert harmful.worse >= harmful.beyond
    bad_version = log_evidence([Table((200, 200, 45, 400), (1e3, 1e3, 1e3, 1e4))])
    bad_build = log_evidence([Table((200, 40, 200, 400), (1e3, 1e3, 1e3, 1e4))])
    assert bad_version.worse < 0
    assert bad_build.worse < 0


def test_where_nothing_else_crashed_it_is_worse_but_no_interaction() -> None:
    evidence = log_evidence([Table((60, 0, 0, 0), (1e3, 1e3, 1e3, 1e3))])
    assert evidence.worse > math.log(1e6)
    assert evidence.beyond == pytest.approx(0.0, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(tables)
def test_evidence_never_falls_with_a_crash_more_in_the_pair(table: Table) -> None:
    crashes = table.crashes
    more = Table((crashes[0] + 1, *crashes[1:]), table.device_days)
    assert log_evidence([more]).worse >= log_evidence([table]).worse - 1e-9


@settings(max_examples=40, deadline=None)
@given(tables)
def test_the_interval_holds_its_estimate_and_its_ends_are_where_the_likelihood_says(table: Table) -> None:
    estimate, low, high = interval([table])
    assert low >= 0
    if estimate is None or estimate == 0.0:
        return
    assert high is None or low <= estimate <= high
    top = float(log_likelihood(table, np.array([estimate]))[0])
    for end in (low, high):
        if end:
            drop = 2 * (top - float(log_likelihood(table, np.array([end]))[0]))
            assert drop == pytest.approx(float(chi2.ppf(0.95, 1)), abs=0.02)


def test_the_interval_covers_the_truth() -> None:
    draw = np.random.default_rng(3)
    mean = np.array([2.0 * 3.0 * 5.0 / 4.0, 3.0, 5.0, 4.0]) * 4
    drawn = draw.poisson(mean, size=(400, 4)).tolist()
    covered = 0
    for crashes in drawn:
        _, low, high = interval([Table(tuple(crashes), (1.0,) * 4)])
        covered += low <= 2.0 and (high is None or high >= 2.0)
    assert 0.92 <= covered / len(drawn) <= 0.985


def test_large_counts_are_as_exact_as_small_ones() -> None:
    estimate, low, high = interval([Table((200_000, 300_000, 150_000, 400_000), (1e6, 2e6, 1e6, 3e6))])
    log_ratio = math.log(200_000 * 400_000 / (300_000 * 150_000) / 1.5)
    deviation = 1.96 * math.sqrt(1 / 200_000 + 1 / 300_000 + 1 / 150_000 + 1 / 400_000)
    assert estimate == pytest.approx(math.exp(log_ratio), rel=1e-4)
    assert low == pytest.approx(math.exp(log_ratio - deviation), rel=1e-3)
    assert high == pytest.approx(math.exp(log_ratio + deviation), rel=1e-3)


def test_more_crashes_than_are_summed_are_refused() -> None:
    with pytest.raises(ValueError, match="--since"):
        interval([Table((CRASHES_MAX, 1, 0, 0), (1.0,) * 4)])


def test_e_bh_at_its_limits() -> None:
    at = math.log(4 / (1 * 0.05)) + 1e-12
    assert stands([at, 0.0, 0.0, 0.0]) == [True, False, False, False]
    assert stands([at - 1e-6, 0.0, 0.0, 0.0]) == [False] * 4
    # Two of four each need half as much: neither stands alone, both together do.
    half = math.log(4 / (2 * 0.05)) + 1e-12
    assert stands([0.0, half, 0.0, half]) == [False, True, False, True]
    assert stands([]) == []


def test_e_bh_keeps_the_share_of_false_findings() -> None:
    """Forty pairs, thirty of them innocent and all sharing one unlucky draw."""
    draw = np.random.default_rng(5)
    shares = []
    for _ in range(2000):
        common = draw.normal()
        # exp(s z - s^2 / 2) is an e-value under the null, whatever the dependence.
        logs = [
            2.0 * (0.7 * common + math.sqrt(0.51) * draw.normal()) - 2.0 + (9.0 if i < 10 else 0.0) for i in range(40)
        ]
        flagged = stands(logs, 0.05)
        shares.append(sum(flagged[10:]) / max(1, sum(flagged)))
    assert np.mean(shares) <= 0.05
