"""Known baseline: does this rollout crash more than the worst of the product's past rollouts, by a wide margin?

For cells without control, where the rate ratio has little or nothing to say. Plain numbers only: counts and
device-seconds of past rollouts, by age of the rollout, and of this one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from detectors.sequential import RATIO_MAX, Floats, log_mean_exp, ratio_grid
from detectors.tenants import GROUPS, NOBODY, ROWS

# A rollout's age windows end at these hours; the last has no end. Crash rates change with the age of an update.
AGE_HOURS: Final = (1.0, 6.0, 24.0, 72.0)
WINDOWS: Final = len(AGE_HOURS) + 1
PAST_TO_KILL: Final = 20
PAST_TO_HOLD: Final = 3
_SHAPE_LOW, _SHAPE_HIGH = 0.05, 1000.0


class PastRollout(msgspec.Struct, frozen=True, array_like=True):
    """What one past rollout of the product saw, per age window.

    Attributes:
        crashes: first crashes of exposed devices, one number per window.
        device_seconds: exposed device-time at risk, one number per window.
        groups: the same two of each tenant group that had any; they add up to the above where they are known.
        origin_ms: when it began; 0 where that is not known.
    """

    crashes: tuple[int, ...]
    device_seconds: tuple[float, ...]
    groups: dict[int, tuple[tuple[int, ...], tuple[float, ...]]] = {}
    origin_ms: int = 0


class BaselineState(msgspec.Struct, kw_only=True):
    """What `Baseline.snapshot` gives: enough to go on bit for bit.

    Attributes:
        seasoned: what the past says with the hours of the week taken into account, as it was when the rollout began:
            rates (33, 5), worst ratios (33,) and shapes (33,); empty where they were not.
    """

    tolerated_ratio: float
    past: list[PastRollout]
    crashes: list[int]
    expected: list[float]
    maximum: float
    frozen: int
    seasoned: tuple[bytes, bytes, bytes] | None = None


def age_window(age_seconds: float) -> int:
    """Return the age window a rollout of this age is in, 0 for the first hour."""
    return sum(age_seconds >= hours * 3600 for hours in AGE_HOURS)


class Baseline:
    """Evidence that the exposed crash at more than tolerated_ratio times twice the worst past ratio.

    Model. A rollout's crashes are Poisson with rate g * lambda(age), where g differs between rollouts: gamma with mean
    1 and shape k, so that counts are negative binomial. lambda and k come from past rollouts in same-age windows (rate
    of all of them pooled; k by moments). With x crashes where lambda expects E, the likelihood ratio of rate multiplier
    rho against rho* = tolerated_ratio * 2 * (worst past ratio) is that of the path, in closed form:

        log M(rho) = x log(rho / rho*) + (k + x) log((k + rho* E) / (k + rho E))

    averaged over 32 log-spaced rho > rho*. Past rollouts are fixed when this one begins, so M is a martingale. `rows`
    has the evidence without any one tenant group: its past, its crashes and its device-time left out.

    With `past_weights`, device-time counts by what is expected at its hours of the week: that of the past by these, and
    that of `add` by its `factor`. A past of quiet nights then says what a busy noon is like.

    Assumptions. The past rollouts are like this one but for the harm; nothing else shakes the fleet. Shocks that other
    products see too must be kept out: pass `frozen`. Device-seconds are an upper bound of the exposed time.

    A false alarm costs a stopped rollout of a good update. With fewer than 20 past rollouts the spread between them is
    not known well enough to kill (`can_kill`), with fewer than 3 there is no evidence at all.

    Args:
        past: the past rollouts of the product, harmful ones left out.
        tolerated_ratio: rho0.
        past_weights: what device-time of the past rollouts counts for, shape (n, windows, 33, 32): by rollout, age
            window, row and tenant group; None where the hour makes no difference.

    Attributes:
        seasoned: whether there are such weights.

    Example:
        Twenty past rollouts with one crash in a million device-seconds; one crash per 10,000 now: the evidence reaches
        10^6 at index 6.

        >>> quiet = PastRollout((1, 0, 0, 0, 0), (1e6, 0.0, 0.0, 0.0, 0.0))
        >>> detector = Baseline([quiet] * 20, tolerated_ratio=1.5)
        >>> fired = [i for i in range(12) if detector.update(0, {0: 1}, {0: 10_000.0}) >= math.log(1e6)]
        >>> fired[0]
        6

    Source: Cook and Lawless (2007), "The Statistical Analysis of Recurrent Events", 2.2.3, for the mixed Poisson path.
    """

    def __init__(
        self, past: Sequence[PastRollout], tolerated_ratio: float = 1.5, past_weights: Floats | None = None
    ) -> None:
        self.past = list(past)
        self.tolerated_ratio = tolerated_ratio
        self.frozen = 0
        self.maximum = 0.0
        self.rows: Floats = np.zeros(ROWS)
        self._crashes: Floats = np.zeros(ROWS)
        self._expected: Floats = np.zeros(ROWS)
        self._moved = False
        self.seasoned = past_weights is not None
        self._take_history(*_history(self.past, past_weights))

    def _take_history(self, rates: Floats, worst: Floats, shape: Floats) -> None:
        self._rates, self._worst, self._shape = rates, worst, shape
        tolerated_ratio = self.tolerated_ratio
        tested = np.minimum(tolerated_ratio * 2.0 * worst, RATIO_MAX / 2)
        self.worst_ratio, self.tested_ratio, self.shape = float(worst[-1]), float(tested[-1]), float(self._shape[-1])
        self._tested = tested
        grids = {one: ratio_grid(one, 64.0 * RATIO_MAX) for one in set(tested.tolist())}
        self._ratios: Floats = np.stack([grids[one] for one in tested.tolist()])

    @property
    def log_evidence(self) -> float:
        """The natural log of the e-value now, nobody left out; 0 with too little history."""
        return float(self.settle()[NOBODY])

    @property
    def crashes(self) -> int:
        """Exposed crashes that were compared."""
        return int(self._crashes[NOBODY])

    @property
    def expected(self) -> float:
        """How many the past would have given in the same device-time."""
        return float(self._expected[NOBODY])

    @property
    def can_hold(self) -> bool:
        """Tell whether there is history enough for any evidence."""
        return len(self.past) >= PAST_TO_HOLD

    @property
    def can_kill(self) -> bool:
        """Tell whether there is history enough for the evidence to count towards a kill."""
        return len(self.past) >= PAST_TO_KILL

    def add(
        self,
        window: int,
        crashes: Mapping[int, int],
        device_seconds: Mapping[int, float],
        *,
        factor: float | Floats = 1.0,
        frozen: bool = False,
    ) -> None:
        """Add exposed crashes and device-time of one age window, by tenant group; `settle` says what they come to.

        Args:
            window: age window of this stretch of time, from `age_window`.
            crashes: group to first crashes of exposed devices in it.
            device_seconds: group to exposed device-time at risk, an upper bound where only a bound is known.
            factor: crash rate expected at this hour of the week, against the week's mean; by row and tenant group
                (shape (33, 32), 0 where a row leaves the group out) where that is known.
            frozen: other products see a shock too: nothing of this stretch is evidence.

        Raises:
            ValueError: a negative count or time, or a factor that is not positive.
        """
        nothing = not isinstance(factor, np.ndarray) and factor <= 0
        if min(crashes.values(), default=0) < 0 or not min(device_seconds.values(), default=0.0) >= 0 or nothing:
            raise ValueError(f"{crashes} crashes in {device_seconds} device-seconds, factor {factor}: 0 or more needed")
        total = sum(crashes.values())
        if not self.can_hold or frozen or math.isinf(self._rates[NOBODY, window]):
            # No past rollout was watched at this age: there is nothing to compare with.
            self.frozen += total
            return
        seconds = math.fsum(device_seconds.values())
        if not total and not seconds:
            return
        # A row whose past was never watched at this age (a group alone was) stays out of this stretch.
        rates = np.where(np.isinf(self._rates[:, window]), 0.0, self._rates[:, window])
        known = rates > 0
        told = np.full(ROWS, float(total))
        for group, count in crashes.items():
            told[group] -= count
        self._crashes += np.where(known, told, 0.0)
        self._expected += rates * _counting(device_seconds, seconds, factor)
        self._moved = True

    def settle(self) -> Floats:
        """Return the log evidence now: shape (33,), row j without group j, the last with all."""
        if self._moved:
            self._moved = False
            x, e, k = self._crashes[:, None], self._expected[:, None], self._shape[:, None]
            tested = self._tested[:, None]
            logs = x * np.log(self._ratios / tested) + (k + x) * (np.log(k + tested * e) - np.log(k + self._ratios * e))
            self.rows = log_mean_exp(logs)
            self.maximum = max(self.maximum, float(self.rows[NOBODY]))
        return self.rows

    def update(
        self,
        window: int,
        crashes: Mapping[int, int],
        device_seconds: Mapping[int, float],
        *,
        factor: float | Floats = 1.0,
        frozen: bool = False,
    ) -> float:
        """`add` a stretch of time and return the log evidence after it, nobody left out."""
        self.add(window, crashes, device_seconds, factor=factor, frozen=frozen)
        return self.log_evidence

    def snapshot(self) -> BaselineState:
        """Return the state; `restore` of it goes on bit for bit."""
        self.settle()
        return BaselineState(
            tolerated_ratio=self.tolerated_ratio,
            past=self.past,
            crashes=[int(count) for count in self._crashes],
            expected=self._expected.tolist(),
            maximum=self.maximum,
            frozen=self.frozen,
            seasoned=(self._rates.tobytes(), self._worst.tobytes(), self._shape.tobytes()) if self.seasoned else None,
        )

    @classmethod
    def restore(cls, state: BaselineState) -> "Baseline":
        """Build the detector that `state` was taken from."""
        detector = cls(state.past, state.tolerated_ratio)
        if state.seasoned is not None:
            rates, worst, shape = (np.frombuffer(one).copy() for one in state.seasoned)
            detector._take_history(rates.reshape(ROWS, WINDOWS), worst, shape)
            detector.seasoned = True
        detector._crashes = np.array(state.crashes, dtype=np.float64)
        detector._expected = np.array(state.expected, dtype=np.float64)
        detector.maximum, detector.frozen = state.maximum, state.frozen
        if detector.can_hold and (detector._crashes.any() or detector._expected.any()):
            detector._moved = True
            detector.settle()
        return detector


def _counting(device_seconds: Mapping[int, float], total: float, factor: float | Floats) -> Floats:
    """Return what device-time counts for, by row of the group left out: shape (33,)."""
    if isinstance(factor, np.ndarray):
        by_group = np.zeros(GROUPS)
        for group, one in device_seconds.items():
            by_group[group] = one
        weighed: Floats = factor @ by_group
        return weighed
    lasted = np.full(ROWS, total)
    for group, one in device_seconds.items():
        lasted[group] = max(0.0, lasted[group] - one)
    return lasted * factor


def _history(past: Sequence[PastRollout], weights: Floats | None = None) -> tuple[Floats, Floats, Floats]:
    """Return what the past says, by row of the group left out: rates (33, windows), worst ratio (33,), shape (33,)."""
    crashes, seconds = np.zeros((len(past), ROWS, WINDOWS)), np.zeros((len(past), ROWS, WINDOWS))
    for index, one in enumerate(past):
        crashes[index], seconds[index] = one.crashes, one.device_seconds
        for group, (count, lasted) in one.groups.items():
            crashes[index, group] -= count
            seconds[index, group] = np.maximum(seconds[index, group] - lasted, 0.0)
        if weights is not None and one.groups:
            by_group = np.zeros((WINDOWS, GROUPS))
            for group, (_, lasted) in one.groups.items():
                by_group[:, group] = lasted
            seconds[index] = np.einsum("wjg,wg->jw", weights[index], by_group)
    total = seconds.sum(axis=0)
    # Half a crash more than seen: a window in which nothing ever crashed is no promise that nothing can.
    rates = np.where(total > 0, (crashes.sum(axis=0) + 0.5) / np.where(total > 0, total, 1.0), math.inf)
    worst, shape = np.ones(ROWS), np.full(ROWS, _SHAPE_HIGH)
    finite = np.where(np.isinf(rates), 0.0, rates)
    for upto in range(1, WINDOWS + 1):
        told = seconds[:, :, :upto] > 0
        x = np.where(told, crashes[:, :, :upto], 0.0).sum(axis=2)
        e = np.where(told, finite[:, :upto] * seconds[:, :, :upto], 0.0).sum(axis=2)
        some = e.sum(axis=0) > 0
        if not some.any():
            continue
        worst = np.where(some, np.maximum(worst, ((x + 0.5) / (e + 0.5)).max(axis=0)), worst)
        excess = ((x - e) ** 2 - e).sum(axis=0)
        spread = np.where(excess > 0, (e**2).sum(axis=0) / np.where(excess > 0, excess, 1.0), math.inf)
        shape = np.where(some, np.minimum(shape, spread), shape)
    return rates, worst, np.maximum(shape, _SHAPE_LOW)
