"""Error budgets: how much risk of a false kill each rollout may take, so that a year's sum stays what was accepted.

A rollout's alpha is fixed when it starts (`Budgets`), before there is evidence to tempt anyone. Alerts, which only ask
a person to look, may err in proportion instead (`ELond`). Plain numbers and event times only; no clock is read.
"""

import hashlib
import math
from typing import Annotated, Final

import msgspec
from msgspec import Meta

DAY_MS: Final = 86_400_000
YEAR_MS: Final = 365 * DAY_MS
# Spendings are booked by periods of five days, 73 to the year. A year that begins within a period touches 74 of them.
PERIOD_MS: Final = 5 * DAY_MS
PERIODS: Final = YEAR_MS // PERIOD_MS + 1
# Below this part of the budget, grants shrink.
RESERVE: Final = 0.1
# The most that one rollout gets of a budget, however high `alpha_kill` is.
SHARE_MOST: Final = 0.01
TENANTS_MAX: Final = 1024
SHARED: Final = 64
ROLLOUTS_REMEMBERED: Final = 4096
ROLLOUTS_REMEMBERED_TENANT: Final = 256
# Grants are whole numbers of 2^-200, so that sums are exact: no rounding ever adds up past the budget.
_UNIT_BITS: Final = 200
OPEN_MAX: Final = 4096

_Budget = Annotated[float, Meta(gt=0, le=1)]


class BudgetLimits(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What was accepted.

    Attributes:
        alpha_kill: the most risk of a false kill that one rollout gets.
        false_kills_per_year: sum over the declared rollouts of any year.
        tenant_false_kills_per_year: sum over the rollouts that one tenant's reports made known, of any year.
    """

    alpha_kill: _Budget = 1e-6
    false_kills_per_year: _Budget = 0.01
    tenant_false_kills_per_year: _Budget = 1e-4

    def __post_init__(self) -> None:
        """Refuse what is no probability, also where no decoder checked it."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not 0.0 < value <= 1.0:
                raise ValueError(f"{name} must be above 0 and at most 1, not {value}")


class LedgerState(msgspec.Struct, array_like=True):
    """One budget's books; sums and grants in hexadecimal multiples of 2^-200."""

    spent: dict[int, str]
    grants: dict[str, str]


class BudgetsState(msgspec.Struct, kw_only=True):
    """What `Budgets.snapshot` gives."""

    limits: BudgetLimits
    installation: LedgerState
    tenants: dict[str, LedgerState]
    shared: dict[int, LedgerState]


class _Ledger:
    """One budget: what was granted in each period, and to whom lately."""

    def __init__(self, budget: float, remembered: int) -> None:
        self.budget = budget
        self.remembered = remembered
        self.spent: dict[int, int] = {}
        self.grants: dict[str, int] = {}

    def grant(self, rollout: str, at_ms: int, alpha_most: float) -> float:
        known = self.grants.get(rollout)
        if known is None:
            period = self._period(at_ms)
            known = self._next(self._left(period), alpha_most)
            self.spent[period] = self.spent.get(period, 0) + known
            self.grants[rollout] = known
            if len(self.grants) > self.remembered:
                del self.grants[next(iter(self.grants))]
            self._forget(max(self.spent))
        return math.ldexp(known, -_UNIT_BITS)

    def empty_at(self, at_ms: int) -> bool:
        """Tell whether all has been returned by then, also for starts that are told up to a year late."""
        return not self.spent or at_ms // PERIOD_MS - max(self.spent) >= 2 * PERIODS

    def _period(self, at_ms: int) -> int:
        """Return the period to book in: no earlier than a year before the latest, where books still are complete."""
        period = at_ms // PERIOD_MS
        return max(period, max(self.spent) - PERIODS + 1) if self.spent else period

    def _left(self, period: int) -> int:
        """Return what is left in the fullest of the years that hold this period."""
        units = [self.spent.get(one, 0) for one in range(period - PERIODS + 1, period + PERIODS)]
        total = fullest = sum(units[:PERIODS])
        for new, old in zip(units[PERIODS:], units, strict=False):
            total += new - old
            fullest = max(fullest, total)
        return _units(self.budget) - fullest

    def _next(self, left: int, alpha_most: float) -> int:
        most = min(alpha_most, SHARE_MOST * self.budget)
        part = max(left, 0) / _units(RESERVE * self.budget)
        return max(_units(most * min(part, 1.0) ** 2), 1)

    def _forget(self, latest: int) -> None:
        for period in [one for one in self.spent if one <= latest - 2 * PERIODS]:
            del self.spent[period]

    def snapshot(self) -> LedgerState:
        return LedgerState(
            {period: f"{units:x}" for period, units in self.spent.items()},
            {rollout: f"{units:x}" for rollout, units in self.grants.items()},
        )

    def load(self, state: LedgerState) -> "_Ledger":
        self.spent = {period: int(units, 16) for period, units in state.spent.items()}
        self.grants = {rollout: int(units, 16) for rollout, units in state.grants.items()}
        return self


def _units(value: float) -> int:
    """Return a probability in whole units, rounded down."""
    return int(math.ldexp(value, _UNIT_BITS))


class Budgets:
    """Grants each rollout its alpha, so that the grants of any year sum to at most what was accepted.

    Rule. With L left of a budget B in the fullest year that holds the rollout's start, the grant is
    a = min(alpha_kill, B / 100) while L >= B / 10, and a (L / (B / 10))^2 below. The n-th rollout past that point gets
    about a / (1 + 10 n a / B)^2: it shrinks like 1 / n^2, so that the sum stays below B and no rollout ever gets
    nothing. With the defaults 9,000 declared rollouts a year get 1e-6 each; one more after 10,000 others gets 2.5e-7,
    after 100,000 1.2e-10. What was granted returns after a year (365 to 370 days) of event time.

    By the union bound the false kills expected in any year, of rollouts no worse than tolerated, are at most B. A
    tenant whose reports made a rollout known pays for it from a budget of its own, so that 10,000 invented versions
    shrink nobody else's grants, by not one bit; all told, the false kills are at most
    false_kills_per_year + tenants * tenant_false_kills_per_year.

    Assumptions. A grant is asked for when the rollout starts, not once its evidence is seen. Who is named as
    discoverer is authenticated.

    A false alarm costs a stopped rollout of a good update; too small a grant costs crashes: each factor ten less
    takes log(10) more evidence, one crash or two at a ratio of 100.

    Bounds. A budget remembers its last 4,096 rollouts (a tenant's: 256); one asked for again after that is paid for
    again. 1,024 tenants have books of their own; those beyond share 64 budgets by a hash of their name, and a flood
    by one of them then shrinks the grants of those who share with it. A start told more than a year late is booked a
    year before the latest.

    Example:
        The hundredth version that one tenant invents gets less than its first; the tenant beside it does not notice.

        >>> budgets = Budgets()
        >>> grants = [budgets.grant(f"invented-{i}", 0, discovered_by="liar") for i in range(100)]
        >>> f"{grants[0]:.3g} {grants[99]:.2g} {budgets.grant('real', 0, discovered_by='honest'):.3g}"
        '1e-06 2.6e-07 1e-06'
        >>> [i for i in range(100) if grants[i] < 1e-6][0]
        91

    Source: Bonferroni over time; the shrinking rule is in the manner of alpha-spending, Foster and Stine (2008),
    "alpha-investing", without the earning back, which needs what is not assumed here about dependence.
    """

    def __init__(self, limits: BudgetLimits | None = None) -> None:
        self.limits = limits or BudgetLimits()
        self._installation = _Ledger(self.limits.false_kills_per_year, ROLLOUTS_REMEMBERED)
        self._tenants: dict[str, _Ledger] = {}
        self._shared: dict[int, _Ledger] = {}

    def grant(self, rollout: str, at_ms: int, discovered_by: str = "", alpha_most: float | None = None) -> float:
        """Return the rollout's alpha: the same however often it is asked for.

        A rollout that one tenant's reports made known and that is declared later is granted from the installation's
        budget too; both are spent, so the larger of the two is its alpha.

        Args:
            rollout: its id.
            at_ms: event time of its start, milliseconds.
            discovered_by: the tenant whose report made it known; empty for a declared rollout.
            alpha_most: the most it may get, where its product's policy differs from `alpha_kill`.

        Raises:
            ValueError: the id is empty, or `alpha_most` is no probability.
        """
        most = self.limits.alpha_kill if alpha_most is None else alpha_most
        if not rollout:
            raise ValueError("a rollout without an id can't be granted anything: pass its id")
        if not 0.0 < most <= 1.0:
            raise ValueError(f"alpha_most must be above 0 and at most 1, not {most}")
        return self._ledger(discovered_by, at_ms).grant(rollout, at_ms, most)

    def _ledger(self, tenant: str, at_ms: int) -> _Ledger:
        if not tenant:
            return self._installation
        own = self._tenants.get(tenant)
        if own is not None:
            return own
        number = int.from_bytes(hashlib.blake2b(tenant.encode(), digest_size=8).digest()) % SHARED
        shared = self._shared.get(number)
        # Whoever may have spent in shared books goes on there until all of it has returned: nobody gets two budgets.
        if shared is not None and not shared.empty_at(at_ms):
            return shared
        if len(self._tenants) >= TENANTS_MAX:
            self._drop_returned(at_ms)
        if len(self._tenants) >= TENANTS_MAX:
            return self._shared.setdefault(number, self._small_ledger())
        return self._tenants.setdefault(tenant, self._small_ledger())

    def _small_ledger(self) -> _Ledger:
        return _Ledger(self.limits.tenant_false_kills_per_year, ROLLOUTS_REMEMBERED_TENANT)

    def _drop_returned(self, at_ms: int) -> None:
        for tenant in [name for name, ledger in self._tenants.items() if ledger.empty_at(at_ms)]:
            del self._tenants[tenant]

    def snapshot(self) -> BudgetsState:
        """Return the state; `restore` of it goes on bit for bit."""
        return BudgetsState(
            limits=self.limits,
            installation=self._installation.snapshot(),
            tenants={tenant: ledger.snapshot() for tenant, ledger in self._tenants.items()},
            shared={number: ledger.snapshot() for number, ledger in self._shared.items()},
        )

    @classmethod
    def restore(cls, state: BudgetsState, limits: BudgetLimits | None = None) -> "Budgets":
        """Build the budgets that `state` was taken from; with `limits`, go on under a changed policy.

        What was granted stays granted. Where it is more than a lowered budget, grants are 2^-200 until it returns.
        """
        budgets = cls(limits or state.limits)
        budgets._installation.load(state.installation)
        budgets._tenants = {tenant: budgets._small_ledger().load(one) for tenant, one in state.tenants.items()}
        budgets._shared = {number: budgets._small_ledger().load(one) for number, one in state.shared.items()}
        return budgets


def lond_weight(number: int) -> float:
    """Return the weight of the `number`-th hypothesis (from 1): 1/log2(n+1) - 1/log2(n+2), which telescope to 1."""
    if number < 1:
        raise ValueError(f"hypotheses are numbered from 1, not {number}")
    low, high = math.log2(number + 1), math.log2(number + 2)
    # The difference of the logs is taken by log1p: for large numbers the two are alike in most of their digits.
    return math.log1p(1.0 / (number + 1)) / math.log(2.0) / (low * high)


class ELondState(msgspec.Struct, kw_only=True):
    """What `ELond.snapshot` gives."""

    alpha: float
    started: int
    discoveries: int
    levels: dict[str, float]
    found: dict[str, bool]


class ELond:
    """Alerts of which at most a share `alpha` is false on average, however the hypotheses depend on each other.

    Rule (e-LOND). The t-th hypothesis is tested at level alpha_t = alpha * gamma_t * (discoveries so far + 1), the
    gamma summing to 1: it is a discovery once its e-value reaches 1 / alpha_t. Each discovery raises the levels of
    those that start after it. The level is fixed at the start, and an e-process may be looked at whenever one likes:
    when it crosses, the discoveries are at least those it started with and itself, which is all that the proof needs.

    For alerts only, never for a kill: it bounds the share of false alerts, not their number, and one real incident
    would buy easier kills for the rollouts after it.

    A false alarm costs a look by a person.

    Bounds: 4,096 hypotheses are open at once; the oldest are closed as not found, which makes no false alert.

    Example:
        The first is tested at 0.05 * 0.369 and found with an e-value of 55; the second at 2 * 0.05 * 0.131.

        >>> alerts = ELond(alpha=0.05)
        >>> level = alerts.start("a")
        >>> [e for e in (20, 54, 55) if alerts.found("a", math.log(e))]
        [55]
        >>> round(level, 4), round(alerts.start("b"), 4)
        (0.0185, 0.0131)

    Source: Xu and Ramdas (2024), "Online multiple testing with e-values", AISTATS; weights by Cordon.
    """

    def __init__(self, alpha: float = 0.05) -> None:
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
        self.alpha = alpha
        self.started = 0
        self.discoveries = 0
        self._levels: dict[str, float] = {}
        self._found: dict[str, bool] = {}

    def start(self, hypothesis: str) -> float:
        """Return the level of a hypothesis, fixed by the first call."""
        level = self._levels.get(hypothesis)
        if level is None:
            self.started += 1
            level = self.alpha * lond_weight(self.started) * (self.discoveries + 1)
            self._levels[hypothesis] = level
            self._found[hypothesis] = False
            if len(self._levels) > OPEN_MAX:
                self.close(next(iter(self._levels)))
        return level

    def found(self, hypothesis: str, log_evidence: float) -> bool:
        """Tell whether the hypothesis is, or now becomes, a discovery: it latches.

        Args:
            hypothesis: one that was started; a closed one is never found.
            log_evidence: natural log of its e-value now.
        """
        if hypothesis not in self._levels:
            return False
        if not self._found[hypothesis] and log_evidence >= -math.log(self._levels[hypothesis]):
            self._found[hypothesis] = True
            self.discoveries += 1
        return self._found[hypothesis]

    def close(self, hypothesis: str) -> None:
        """Forget a hypothesis that is over; its place stays taken, and it must not be started again."""
        self._levels.pop(hypothesis, None)
        self._found.pop(hypothesis, None)

    def snapshot(self) -> ELondState:
        """Return the state; `restore` of it goes on bit for bit."""
        return ELondState(
            alpha=self.alpha,
            started=self.started,
            discoveries=self.discoveries,
            levels=dict(self._levels),
            found=dict(self._found),
        )

    @classmethod
    def restore(cls, state: ELondState) -> "ELond":
        """Build the procedure that `state` was taken from."""
        procedure = cls(state.alpha)
        procedure.started = state.started
        procedure.discoveries = state.discoveries
        procedure._levels = dict(state.levels)
        procedure._found = dict(state.found)
        return procedure
