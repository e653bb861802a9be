"""The rollouts under watch: who is taken in, what each is granted and compared with, and what is kept of those gone.

Between the stage, which orders records, and the trackers, which hold evidence. Invariants: bounded; a rollout that was
closed is not watched again by a late window; a grant is fixed when the rollout starts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from detectors.baseline import PAST_TO_HOLD, PastRollout
from detectors.drill import is_drill
from detectors.merge import PartitionState
from detectors.online_fdr import BudgetLimits, Budgets, BudgetsState
from detectors.policy import Policies, Policy
from detectors.sequential import Floats
from detectors.shared import Shared, SharedState
from detectors.tracker import Tracker
from detectors.tracker_state import TrackerState
from detectors.wave import ControlWave
from ingest.events import product_key
from ingest.rollouts import Rollout
from ingest.windows import CohortWindow

ROLLOUTS_MAX: Final = 1024
_CLOSED_MAX: Final = 4096
_PAST_MAX: Final = 100
_PAST_AGE_MS: Final = 24 * 3_600_000
# Who pays for a rollout of which nothing but windows is known.
_NOBODY_KNOWN: Final = "(unknown)"


class WatchlistState(msgspec.Struct, kw_only=True):
    """What `Watchlist.snapshot` gives; trackers have chunks of their own.

    Attributes:
        past: product to its past rollouts.
        closed: rollouts that are over, oldest first.
        budgets: what rollouts were granted.
        shared: what rollouts know together.
    """

    past: dict[str, list[PastRollout]]
    closed: list[str]
    budgets: BudgetsState
    shared: SharedState


class Watchlist(Mapping[str, Tracker]):
    """Trackers by rollout.

    Args:
        policies: what evidence is enough for what.
        silence_seconds: the overdue time grouping works with.
        rollouts_max: how many are watched at once; then the one heard of longest ago makes room.

    Attributes:
        shared: what rollouts know together.
    """

    def __init__(self, policies: Policies, silence_seconds: float, rollouts_max: int = ROLLOUTS_MAX) -> None:
        self._rollouts_max = rollouts_max
        self._policies = policies
        self._silence_seconds = silence_seconds
        self._trackers: dict[str, Tracker] = {}
        # By product, in the order in which they were taken in: what a new one is compared with.
        self._watched_of: dict[str, dict[str, None]] = {}
        self._past: dict[str, list[PastRollout]] = {}
        self._closed: dict[str, None] = {}
        # Those that may be in a wave, and since when: few of them, where asking all costs more the more there are.
        self._waving: dict[str, int] = {}
        self._budgets = Budgets(_limits(policies.default))
        self.shared = Shared()

    def __getitem__(self, rollout: str) -> Tracker:
        return self._trackers[rollout]

    def __iter__(self) -> Iterator[str]:
        return iter(self._trackers)

    def __len__(self) -> int:
        return len(self._trackers)

    def over(self, rollout: str) -> bool:
        """Tell whether a rollout was closed."""
        return rollout in self._closed

    def least_needed(self) -> str | None:
        """Return the rollout that has to make room for another one, undeclared ones first; None while there is room."""
        if len(self._trackers) < self._rollouts_max:
            return None
        return min(self._trackers.values(), key=lambda one: (one.is_declared, one.idle_since_ms, one.rollout)).rollout

    def watch(self, first: Rollout | CohortWindow, parts: Sequence[PartitionState], merged_ms: int) -> Tracker:
        """Take a rollout in.

        Args:
            first: its declaration, or the window that names it first.
            parts: what is known of the device partitions.
            merged_ms: event time.
        """
        if isinstance(first, Rollout):
            self._closed.pop(first.rollout, None)
        policy = self._policies.for_product(first.vendor, first.product)
        past = self._past_of(first.vendor, first.product, merged_ms)
        tracker = self._trackers[first.rollout] = Tracker(
            first,
            policy,
            self._silence_seconds,
            past,
            [one.live for one in parts],
            [not one.gap_ms or first.origin_ms >= one.gap_ms for one in parts],
            alpha=self._alpha(first, policy),
            shared=self.shared,
            past_weights=self._weights_of(first.vendor, first.product, past, merged_ms),
        )
        self._index(tracker)
        return tracker

    def _index(self, tracker: Tracker) -> None:
        self._watched_of.setdefault(product_key(tracker.vendor, tracker.product), {})[tracker.rollout] = None

    def declare(self, tracker: Tracker, rollout: Rollout) -> None:
        """Take a later word on a watched rollout: what was discovered and is declared now has the larger grant."""
        tracker.declare(rollout)
        tracker.alpha = max(tracker.alpha, self._alpha(rollout, tracker.policy))

    def _alpha(self, first: Rollout | CohortWindow, policy: Policy) -> float:
        """Return the risk of a false kill that a rollout may take, from the budget that pays for it."""
        if is_drill(first.vendor, first.product):
            # It has to be killed, every day: no false kill, and nobody's budget.
            return policy.alpha_kill
        # One that only a window names was declared by nobody, and who revealed it is not known here.
        payer = first.discovered_by if isinstance(first, Rollout) else _NOBODY_KNOWN
        return self._budgets.grant(first.rollout, first.origin_ms, payer, policy.alpha_kill)

    def _past_of(self, vendor: str, product: str, merged_ms: int) -> list[PastRollout]:
        product_text = product_key(vendor, product)
        past = list(self._past.get(product_text, []))
        for rollout in self._watched_of.get(product_text, {}):
            tracker = self._trackers[rollout]
            if merged_ms - tracker.origin_ms >= _PAST_AGE_MS:
                told = tracker.as_past()
                past += [told] if told is not None else []
        return past[-_PAST_MAX:]

    def _weights_of(self, vendor: str, product: str, past: Sequence[PastRollout], merged_ms: int) -> Floats | None:
        """Return what the past's device-time counts for; None where the hours of the week are not known."""
        if len(past) < PAST_TO_HOLD:
            return None
        factors = self.shared.seasons.factors(product_key(vendor, product), merged_ms)
        return None if factors is None else factors.past([one.origin_ms for one in past])

    def close(self, rollout: str) -> None:
        """End a rollout's watch, and keep what later ones compare with."""
        self._closed[rollout] = None
        while len(self._closed) > _CLOSED_MAX:
            del self._closed[next(iter(self._closed))]
        tracker = self._trackers.pop(rollout, None)
        self._waving.pop(rollout, None)
        if tracker is not None:
            siblings = self._watched_of[product_key(tracker.vendor, tracker.product)]
            del siblings[rollout]
            if not siblings:
                del self._watched_of[product_key(tracker.vendor, tracker.product)]
        told = tracker.as_past() if tracker is not None else None
        if tracker is not None and told is not None:
            past = self._past.setdefault(product_key(tracker.vendor, tracker.product), [])
            past.append(told)
            del past[:-_PAST_MAX]

    def shaken(self, tracker: Tracker, at_ms: int) -> bool:
        """Tell whether the controls of another product's rollout crash in a wave now."""
        for name in [name for name, since_ms in self._waving.items() if ControlWave.over(since_ms, at_ms)]:
            del self._waving[name]
        others = (self._trackers[name] for name in self._waving)
        return any(
            (other.vendor, other.product) != (tracker.vendor, tracker.product)
            and not is_drill(other.vendor, other.product)
            and other.in_shock(at_ms)
            for other in others
        )

    def crashed(self, tracker: Tracker) -> None:
        """Note that crashes of a rollout were counted: they may be a wave now."""
        since_ms = tracker.wave_candidate_ms
        if since_ms is not None:
            self._waving[tracker.rollout] = since_ms

    def snapshot(self) -> WatchlistState:
        """Return the state; `load` takes it up."""
        return WatchlistState(
            past=self._past,
            closed=list(self._closed),
            budgets=self._budgets.snapshot(),
            shared=self.shared.snapshot(),
        )

    def load(self, state: WatchlistState) -> None:
        """Take up a state, before any tracker's."""
        self._past, self._closed = state.past, dict.fromkeys(state.closed)
        self._budgets = Budgets.restore(state.budgets, _limits(self._policies.default))
        self.shared = Shared.restore(state.shared)

    def restore(self, state: TrackerState) -> Tracker:
        """Take a tracker up where its state stands, with today's policy."""
        policy = self._policies.for_product(state.vendor, state.product)
        tracker = Tracker.restore(state, policy, self._silence_seconds, self.shared)
        self._trackers[state.rollout] = tracker
        self._index(tracker)
        self.crashed(tracker)
        return tracker


def _limits(policy: Policy) -> BudgetLimits:
    return BudgetLimits(
        alpha_kill=policy.alpha_kill,
        false_kills_per_year=policy.false_kills_per_year,
        tenant_false_kills_per_year=policy.tenant_false_kills_per_year,
    )
