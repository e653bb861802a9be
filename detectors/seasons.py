"""Expected crash rates in use: each product's hours of the week, by tenant group, and what they make of device-time.

Between `seasonal`, which knows one history and its fit, and the known baseline. Fed by trackers once an hour with what
devices without anything new, and those of rollouts that turned out healthy, have done. Invariants: bounded; a group's
history weighs its own device-time and no other's, so nothing that one group says is left where it is left out; at most
one group of a product is fitted in an hour of event time (0.2 s of a core), and only where a baseline asks.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from detectors.baseline import AGE_HOURS, WINDOWS
from detectors.seasonal import (
    CRASHES_LEAST,
    HOURS_LEAST,
    HOURS_OF_WEEK,
    SeasonalHistory,
    SeasonalHistoryState,
    SeasonalRates,
    hour_of_week,
)
from detectors.sequential import Floats
from detectors.tenants import GROUPS, ROWS

PRODUCTS_MAX: Final = 64
# A week's history weighs half as much after seven weeks.
FADE_A_WEEK: Final = 0.9
# A group is fitted again when there are so many times the crashes of its last fit; what fades fades from both.
GROWN: Final = 1.1
HOUR_MS: Final = 3_600_000
# Hours are looked up so often within a past rollout's age window.
_STEP_HOURS: Final = 0.5


class HourSums(msgspec.Struct, array_like=True):
    """What one tenant group's devices did in one hour.

    Attributes:
        age_hours: about how long ago they were given what they are on.
        crashes: first crashes.
        device_days: device-time at risk.
    """

    age_hours: float
    crashes: int
    device_days: float


class HourFactors:
    """How much is expected at each hour of the week against the average, by tenant group and row of the group left out.

    A group with history enough has factors of its own. The device-time of the others is weighed by the median of those
    that have, which in row j is without group j; where none is left it is 1.

    Args:
        own: group to its factors, shape (168,) each, of mean 1 and above 0.
    """

    def __init__(self, own: Mapping[int, Floats]) -> None:
        self.own = dict(own)
        self._table: Floats | None = None

    def at(self, hour: int) -> Floats:
        """Return what device-time counts for at an hour of the week: shape (33, 32), 0 where the group is left out."""
        weights: Floats = self._whole()[hour]
        return weights

    def past(self, origins_ms: Sequence[int]) -> Floats:
        """Return the same over the age windows of past rollouts, shape (n, windows, 33, 32).

        Hours within a window count alike, whoever was exposed in them: that nobody's devices can move. A rollout whose
        origin is not known (0) counts as spread over the week.
        """
        hours = np.zeros((len(origins_ms), WINDOWS, HOURS_OF_WEEK))
        for index, origin_ms in enumerate(origins_ms):
            begin = 0.0
            for window, end in enumerate(AGE_HOURS):
                ages = np.arange(begin + _STEP_HOURS / 2, end, _STEP_HOURS)
                places = [hour_of_week(origin_ms + int(age * HOUR_MS)) for age in ages.tolist()] if origin_ms else []
                hours[index, window] = np.bincount(places, minlength=HOURS_OF_WEEK) if places else 1.0
                begin = end
            hours[index, WINDOWS - 1] = 1.0
        hours /= hours.sum(axis=2, keepdims=True)
        flat = hours.reshape(-1, HOURS_OF_WEEK) @ self._whole().reshape(HOURS_OF_WEEK, -1)
        return flat.reshape(len(origins_ms), WINDOWS, ROWS, GROUPS)

    def _whole(self) -> Floats:
        if self._table is None:
            table = np.ones((HOURS_OF_WEEK, ROWS, GROUPS))
            for row in range(ROWS):
                others = [np.log(factors) for group, factors in sorted(self.own.items()) if group != row]
                if others:
                    middle = np.exp(np.median(others, axis=0))
                    table[:, row, :] = (middle / middle.mean())[:, None]
            for group, factors in self.own.items():
                table[:, :, group] = factors[:, None]
            groups = np.arange(GROUPS)
            table[:, groups, groups] = 0.0
            self._table = table
        return self._table


class ProductState(msgspec.Struct, kw_only=True):
    """What is kept of one product.

    Attributes:
        groups: tenant group to its history.
        hour: the last hour told, counted from the epoch.
        own: group to its fitted factors, 168 numbers.
        looked_hour: when was last seen whether it should be fitted; -1 for never.
        fitted: tenant group to how many crashes there were when it was fitted last.
    """

    groups: dict[int, SeasonalHistoryState]
    hour: int
    own: dict[int, bytes]
    looked_hour: int
    fitted: dict[int, float]


class _Product:
    """One product's history by tenant group, and its fit."""

    def __init__(self) -> None:
        self.groups: dict[int, SeasonalHistory] = {}
        self.hour = -1
        self.factors = HourFactors({})
        self._looked_hour = -1
        self._fitted: dict[int, float] = {}

    def add(self, hour: int, told: Mapping[int, Sequence[HourSums]]) -> None:
        weeks = hour // HOURS_OF_WEEK - self.hour // HOURS_OF_WEEK
        if self.hour >= 0 and weeks > 0:
            for history in self.groups.values():
                history.fade(FADE_A_WEEK**weeks)
            self._fitted = {group: crashes * FADE_A_WEEK**weeks for group, crashes in self._fitted.items()}
        self.hour = hour
        place = hour_of_week(hour * HOUR_MS)
        for group, sums in sorted(told.items()):
            for one in sums:
                if one.device_days > 0:
                    history = self.groups.setdefault(group, SeasonalHistory())
                    history.add(place, one.age_hours, crashes=one.crashes, device_days=one.device_days)

    def fit(self, hour: int) -> None:
        """Fit the group that has most reason to be fitted again, if any has; at most one in an hour."""
        if hour <= self._looked_hour:
            return
        self._looked_hour = hour
        grown = {
            group: history.crashes / self._fitted.get(group, CRASHES_LEAST / GROWN)
            for group, history in self.groups.items()
            if history.crashes >= CRASHES_LEAST and history.hours_seen >= HOURS_LEAST
        }
        group = max(sorted(grown), key=grown.__getitem__, default=None)
        if group is None or grown[group] < GROWN:
            return
        self._fitted[group] = self.groups[group].crashes
        rates = SeasonalRates.fit(self.groups[group])
        own = {name: factors for name, factors in self.factors.own.items() if name != group}
        self.factors = HourFactors(own if rates.note else own | {group: rates.hour_factors()})

    def snapshot(self) -> ProductState:
        return ProductState(
            groups={group: history.snapshot() for group, history in self.groups.items()},
            hour=self.hour,
            own={group: factors.tobytes() for group, factors in self.factors.own.items()},
            looked_hour=self._looked_hour,
            fitted=self._fitted,
        )

    @classmethod
    def restore(cls, state: ProductState) -> "_Product":
        product = cls()
        product.groups = {group: SeasonalHistory.restore(one) for group, one in state.groups.items()}
        product.hour = state.hour
        product.factors = HourFactors({group: np.frombuffer(one).copy() for group, one in state.own.items()})
        product._looked_hour, product._fitted = state.looked_hour, dict(state.fitted)
        return product


class Seasons:
    """Every product's hours of the week, at most 64 products: the one that was told of longest ago makes room."""

    def __init__(self) -> None:
        self._products: dict[str, _Product] = {}

    def add(self, product: str, hour: int, told: Mapping[int, Sequence[HourSums]]) -> bool:
        """Add an hour of a product; rollouts of one product see the same devices, so the first to tell it counts.

        Args:
            product: its key.
            hour: counted from the epoch.
            told: tenant group to what its devices did.

        Returns:
            False where that hour, or a later one, was told before.
        """
        found = self._products.get(product)
        if found is None:
            while len(self._products) >= PRODUCTS_MAX:
                del self._products[min(self._products, key=lambda name: (self._products[name].hour, name))]
            found = self._products[product] = _Product()
        if hour <= found.hour:
            return False
        found.add(hour, told)
        return True

    def factors(self, product: str, at_ms: int) -> HourFactors | None:
        """Return a product's factors as of an event time; None where no tenant group has history enough."""
        found = self._products.get(product)
        if found is None:
            return None
        found.fit(at_ms // HOUR_MS)
        return found.factors if found.factors.own else None

    def at(self, product: str, at_ms: int) -> Floats | None:
        """Return what a product's device-time counts for at an event time, shape (33, 32); None where nobody knows."""
        factors = self.factors(product, at_ms)
        return None if factors is None else factors.at(hour_of_week(at_ms))

    def snapshot(self) -> dict[str, ProductState]:
        """Return the state; `restore` of it goes on bit for bit."""
        return {name: product.snapshot() for name, product in self._products.items()}

    @classmethod
    def restore(cls, state: Mapping[str, ProductState]) -> "Seasons":
        """Build what `state` was taken from."""
        seasons = cls()
        seasons._products = {name: _Product.restore(one) for name, one in state.items()}
        return seasons
