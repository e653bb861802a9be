"""Error budgets: no year is overdrawn, nobody gets nothing, and no tenant's flood reaches another."""

import doctest
import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detectors.online_fdr
from detectors.online_fdr import (
    OPEN_MAX,
    PERIOD_MS,
    ROLLOUTS_REMEMBERED_TENANT,
    TENANTS_MAX,
    YEAR_MS,
    BudgetLimits,
    Budgets,
    BudgetsState,
    ELond,
    lond_weight,
)

DAYS = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 40)), min_size=1, max_size=25)
DAY_MS = YEAR_MS // 365


def _worst_year(grants: list[tuple[int, float]]) -> float:
    """Return the largest sum over a half-open year that begins at a grant: no other year can hold more."""
    return max(math.fsum(alpha for at, alpha in grants if begin <= at < begin + YEAR_MS) for begin, _ in grants)


@settings(deadline=None)
@given(DAYS, st.sampled_from([1e-6, 1e-5, 0.3]), st.booleans())
def test_no_year_is_overdrawn_whatever_the_order_and_number(
    days: list[tuple[int, int]], alpha: float, declared: bool
) -> None:
    """Starts are told in any order, up to a year late; budgets are small, so that the reserve is reached."""
    limits = BudgetLimits(alpha_kill=alpha, false_kills_per_year=3e-5, tenant_false_kills_per_year=2e-5)
    budgets = Budgets(limits)
    grants: list[tuple[int, float]] = []
    latest = 0
    for index, (day, count) in enumerate(days):
        latest = max(latest, day)
        at = max(day, latest - 360) * DAY_MS
        ids = [f"r-{index}-{one}" for one in range(count)]
        grants += [(at, budgets.grant(rollout, at, "" if declared else "t")) for rollout in ids]
    assert _worst_year(grants) <= (limits.false_kills_per_year if declared else limits.tenant_false_kills_per_year)
    assert min(alpha for _, alpha in grants) > 0.0


def test_a_year_is_used_nearly_up_and_never_over() -> None:
    budgets = Budgets()
    grants = [budgets.grant(f"r{index}", index * 100_000) for index in range(30_000)]
    assert 0.0099 < math.fsum(grants) <= 0.01
    assert grants[:9000] == [1e-6] * 9000
    assert all(one > other > 0 for one, other in itertools.pairwise(grants[9001:]))


def test_ten_thousand_invented_versions_never_get_nothing() -> None:
    budgets = Budgets()
    grants = [budgets.grant(f"invented{index}", 0, "liar") for index in range(10_000)]
    assert math.fsum(grants) <= 1e-4
    assert grants[-1] == pytest.approx(1e-12, rel=0.05)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.integers(0, 700)), min_size=1, max_size=30),
    st.integers(0, 30),
    st.integers(0, 700),
)
def test_a_tenants_flood_leaves_other_grants_unchanged(
    asked: list[tuple[str, int]], before: int, flood_day: int
) -> None:
    alone, flooded = Budgets(), Budgets()
    for index, (tenant, day) in enumerate(asked):
        if index == min(before, len(asked) - 1):
            for one in range(500):
                flooded.grant(f"invented-{one}", flood_day * DAY_MS, "liar")
        args = (f"r{index}", day * DAY_MS, tenant)
        assert alone.grant(*args) == flooded.grant(*args)
    for index, (tenant, _) in enumerate(asked):
        # Also those granted before the flood are remembered.
        assert alone.grant(f"r{index}", 0, tenant) == flooded.grant(f"r{index}", 0, tenant)


def test_spendings_return_after_a_year_of_event_time() -> None:
    budgets = Budgets(BudgetLimits(false_kills_per_year=1e-4))
    for index in range(500):
        budgets.grant(f"r{index}", 0)
    assert budgets.grant("soon", YEAR_MS - 1) < 1e-7
    assert budgets.grant("after", YEAR_MS + PERIOD_MS) == pytest.approx(1e-6)


def test_a_start_told_late_counts_in_every_year_that_holds_it() -> None:
    budgets = Budgets(BudgetLimits(false_kills_per_year=1e-4))
    for index in range(500):
        budgets.grant(f"r{index}", YEAR_MS)
    assert budgets.grant("late", YEAR_MS - 30 * DAY_MS) < 1e-7


def test_a_rollout_is_granted_once_and_the_first_start_counts() -> None:
    budgets = Budgets(BudgetLimits(false_kills_per_year=1e-4))
    first = budgets.grant("r", 0)
    before = budgets.snapshot()
    assert [budgets.grant("r", at) for at in (0, 5, YEAR_MS * 3)] == [first] * 3
    assert budgets.snapshot() == before


def test_a_guessed_name_does_not_spoil_the_declared_rollout() -> None:
    """A tenant that has used up its budget invents the version that its vendor is about to declare."""
    budgets = Budgets()
    for index in range(1000):
        budgets.grant(f"invented{index}", 0, "liar")
    assert budgets.grant("real", 0, "liar") < 1e-7
    assert budgets.grant("real", 1) == 1e-6


def test_a_product_may_get_less_and_none_gets_more_than_a_hundredth() -> None:
    budgets = Budgets()
    assert budgets.grant("careful", 0, alpha_most=1e-9) == pytest.approx(1e-9)
    assert budgets.grant("bold", 0, alpha_most=0.5) == pytest.approx(1e-4)


def test_tenants_beyond_the_bound_share_and_return_to_their_own_books() -> None:
    budgets = Budgets()
    for index in range(TENANTS_MAX):
        budgets.grant("r", 0, f"tenant{index}")
    for index in range(300):
        budgets.grant(f"r{index}", 0, "late-comer")
    state = budgets.snapshot()
    assert len(state.tenants) == TENANTS_MAX
    assert len(state.shared) == 1
    assert budgets.grant("next", 0, "late-comer") < 1e-6
    assert budgets.grant("next", 0, "tenant7") == pytest.approx(1e-6)
    # Room appears once others' spendings have returned; the shared ones are back by then, too.
    assert budgets.grant("later", 3 * YEAR_MS, "late-comer") == pytest.approx(1e-6)
    assert "late-comer" in budgets.snapshot().tenants


def test_memory_is_bounded_in_rollouts_and_years() -> None:
    budgets = Budgets()
    for index in range(2000):
        budgets.grant(f"r{index}", index * 3 * DAY_MS, "t")
    ledger = budgets.snapshot().tenants["t"]
    assert len(ledger.grants) == ROLLOUTS_REMEMBERED_TENANT
    assert len(ledger.spent) <= 148


@settings(deadline=None, max_examples=30)
@given(DAYS, st.integers(0, 25))
def test_restored_budgets_go_on_bit_for_bit(days: list[tuple[int, int]], cut: int) -> None:
    through, part = Budgets(), Budgets()
    for index, (day, count) in enumerate(days):
        if index == cut:
            packed = msgspec.msgpack.encode(part.snapshot())
            part = Budgets.restore(msgspec.msgpack.decode(packed, type=BudgetsState))
        for one in range(count):
            args = (f"{index}-{one}", day * DAY_MS, ("", "a", "b")[one % 3])
            assert through.grant(*args) == part.grant(*args)
    assert through.snapshot() == part.snapshot()


def test_a_lowered_budget_counts_what_was_granted_under_the_old_one() -> None:
    budgets = Budgets()
    for index in range(1000):
        budgets.grant(f"r{index}", 0)
    lowered = Budgets.restore(budgets.snapshot(), BudgetLimits(false_kills_per_year=1e-4))
    assert lowered.grant("r0", 0) == 1e-6
    assert 0.0 < lowered.grant("new", 0) < 1e-50
    assert lowered.grant("next year", 2 * YEAR_MS) == pytest.approx(1e-6)


@pytest.mark.parametrize("value", [0.0, -1e-6, 1.5, math.nan])
def test_limits_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="false_kills_per_year"):
        BudgetLimits(false_kills_per_year=value)
    with pytest.raises(ValueError, match="alpha_most"):
        Budgets().grant("r", 0, alpha_most=value)
    with pytest.raises(ValueError, match="id"):
        Budgets().grant("", 0)


def test_lond_weights_telescope_to_one() -> None:
    number = 20_000
    total = math.fsum(lond_weight(one) for one in range(1, number + 1))
    assert total == pytest.approx(1.0 - 1.0 / math.log2(number + 2), abs=1e-12)
    with pytest.raises(ValueError, match="from 1"):
        lond_weight(0)


@pytest.mark.parametrize(("real_every", "least"), [(2, 0.0), (1000, 0.8)])
def test_the_share_of_false_alerts_stays_within_alpha(real_every: int, least: float) -> None:
    """Null e-values are the worst there are: just enough with the chance that makes their mean 1, and else nothing."""
    rng = np.random.default_rng(3)
    alpha, runs = 0.2, 3000
    shares = []
    for _ in range(runs):
        alerts = ELond(alpha)
        false = true = 0
        for number in range(1, 41):
            real = number % real_every == 0
            level = alerts.start(str(number))
            enough = real or rng.random() < level
            found = alerts.found(str(number), -math.log(level) if enough else -100.0)
            false, true = false + (found and not real), true + (found and real)
        shares.append(false / max(false + true, 1))
        assert true == 40 // real_every
    # Where all are null, the bound is nearly met: the test can fail.
    nulls = math.fsum(lond_weight(number) for number in range(1, 41) if number % real_every)
    error = float(np.std(shares)) / math.sqrt(runs)
    assert least * alpha * nulls < float(np.mean(shares)) <= alpha * nulls + 3 * error


def test_discoveries_latch_raise_later_levels_and_survive_a_restart() -> None:
    alerts = ELond(0.05)
    level = alerts.start("a")
    other = alerts.start("b")
    assert other < level
    assert alerts.found("a", -math.log(level))
    alerts = ELond.restore(msgspec.convert(msgspec.to_builtins(alerts.snapshot()), type(alerts.snapshot())))
    assert alerts.found("a", 0.0)
    assert alerts.start("b") == other
    assert alerts.start("c") == pytest.approx(2 * 0.05 * lond_weight(3))
    assert not alerts.found("never started", 100.0)
    with pytest.raises(ValueError, match="alpha"):
        ELond(1.0)


def test_open_alerts_are_bounded() -> None:
    alerts = ELond()
    for number in range(OPEN_MAX + 10):
        alerts.start(str(number))
    assert len(alerts.snapshot().levels) == OPEN_MAX
    assert not alerts.found("0", 1e9)
    assert alerts.found(str(OPEN_MAX), 1e9)


def test_the_examples_hold() -> None:
    assert doctest.testmod(detectors.online_fdr).failed == 0
