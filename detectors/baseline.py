"""Known baseline: does this rollout crash more than the worst of the product's past rollouts, by a wide margin?

For cells without control, where the rate ratio has little or nothing to say. Plain numbers only: counts and
device-seconds of past rollouts, by age of the rollout, and of this one.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from detectors.sequential import POINTS, RATIO_MAX, Floats, log_mean_exp, ratio_grid

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
    """

    crashes: tuple[int, ...]
    device_seconds: tuple[float, ...]


class BaselineState(msgspec.Struct, kw_only=True):
    """What `Baseline.snapshot` gives: enough to go on bit for bit."""

    tolerated_ratio: float
    past: list[PastRollout]
    crashes: int
    expected: float
    maximum: float
    frozen: int


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

    averaged over 32 log-spaced rho > rho*. Past rollouts are fixed when this one begins, so M is a martingale.

    Assumptions. The past rollouts are like this one but for the harm; nothing else shakes the fleet. Shocks that other
    products see too must be kept out: pass `frozen`. Device-seconds are an upper bound of the exposed time.

    A false alarm costs a stopped rollout of a good update. With fewer than 20 past rollouts the spread between them is
    not known well enough to kill (`can_kill`), with fewer than 3 there is no evidence at all.

    Args:
        past: the past rollouts of the product, harmful ones left out.
        tolerated_ratio: rho0.

    Example:
        Twenty past rollouts with one crash in a million device-seconds; one crash per 10,000 now: the evidence reaches
        10^6 at index 6.

        >>> quiet = PastRollout((1, 0, 0, 0, 0), (1e6, 0.0, 0.0, 0.0, 0.0))
        >>> detector = Baseline([quiet] * 20, tolerated_ratio=1.5)
        >>> fired = [i for i in range(12) if detector.update(0, 1, 10_000.0) >= math.log(1e6)]
        >>> fired[0]
        6

    Source: Cook and Lawless (2007), "The Statistical Analysis of Recurrent Events", 2.2.3, for the mixed Poisson path.
    """

    def __init__(self, past: Sequence[PastRollout], tolerated_ratio: float = 1.5) -> None:
        self.past = list(past)
        self.tolerated_ratio = tolerated_ratio
        self.crashes = 0
        self.expected = 0.0
        self.maximum = 0.0
        self.frozen = 0
        self._rates = self._window_rates()
        self.worst_ratio, self.shape = self._spread()
        self.tested_ratio = min(tolerated_ratio * 2.0 * self.worst_ratio, RATIO_MAX / 2)
        self._ratios = ratio_grid(self.tested_ratio, 64.0 * RATIO_MAX)
        self._evidence = 0.0

    @property
    def log_evidence(self) -> float:
        """The natural log of the e-value now; 0 with too little history."""
        return self._evidence

    @property
    def can_hold(self) -> bool:
        """Tell whether there is history enough for any evidence."""
        return len(self.past) >= PAST_TO_HOLD

    @property
    def can_kill(self) -> bool:
        """Tell whether there is history enough for the evidence to count towards a kill."""
        return len(self.past) >= PAST_TO_KILL

    def _window_rates(self) -> list[float]:
        rates = []
        for window in range(WINDOWS):
            seconds = sum(one.device_seconds[window] for one in self.past)
            # Half a crash more than seen: a window in which nothing ever crashed is no promise that nothing can.
            rates.append((sum(one.crashes[window] for one in self.past) + 0.5) / seconds if seconds > 0 else math.inf)
        return rates

    def _spread(self) -> tuple[float, float]:
        worst, shape = 1.0, _SHAPE_HIGH
        for upto in range(1, WINDOWS + 1):
            seen, expected = [], []
            for one in self.past:
                told = [w for w in range(upto) if one.device_seconds[w] > 0]
                seen.append(sum(one.crashes[w] for w in told))
                expected.append(sum(self._rates[w] * one.device_seconds[w] for w in told))
            x: Floats = np.array(seen, dtype=np.float64)
            e: Floats = np.array(expected, dtype=np.float64)
            if not len(e) or e.sum() <= 0:
                continue
            worst = max(worst, float(((x + 0.5) / (e + 0.5)).max()))
            excess = float(((x - e) ** 2 - e).sum())
            if excess > 0:
                shape = min(shape, float((e**2).sum()) / excess)
        return worst, max(shape, _SHAPE_LOW)

    def update(self, window: int, crashes: int, device_seconds: float, *, frozen: bool = False) -> float:
        """Add exposed crashes and device-time of one age window and return the log evidence.

        Args:
            window: age window of this stretch of time, from `age_window`.
            crashes: first crashes of exposed devices in it.
            device_seconds: exposed device-time at risk, an upper bound where only a bound is known.
            frozen: other products see a shock too: nothing of this stretch is evidence.

        Raises:
            ValueError: a negative count or time.
        """
        if crashes < 0 or not device_seconds >= 0:
            raise ValueError(f"{crashes} crashes in {device_seconds} device-seconds: both must be 0 or more")
        rate = self._rates[window]
        if not self.can_hold or frozen or math.isinf(rate):
            # No past rollout was watched at this age: there is nothing to compare with.
            self.frozen += crashes
            return self._evidence
        if crashes == 0 and device_seconds == 0:
            return self._evidence
        self.crashes += crashes
        self.expected += rate * device_seconds
        self._evidence = self._log_evidence()
        self.maximum = max(self.maximum, self._evidence)
        return self._evidence

    def _log_evidence(self) -> float:
        k, tested = self.shape, self.tested_ratio
        logs = self.crashes * np.log(self._ratios / tested) + (k + self.crashes) * (
            math.log(k + tested * self.expected) - np.log(k + self._ratios * self.expected)
        )
        assert logs.shape == (POINTS,)
        return float(log_mean_exp(logs))

    def snapshot(self) -> BaselineState:
        """Return the state; `restore` of it goes on bit for bit."""
        return BaselineState(
            tolerated_ratio=self.tolerated_ratio,
            past=self.past,
            crashes=self.crashes,
            expected=self.expected,
            maximum=self.maximum,
            frozen=self.frozen,
        )

    @classmethod
    def restore(cls, state: BaselineState) -> "Baseline":
        """Build the detector that `state` was taken from."""
        detector = cls(state.past, state.tolerated_ratio)
        detector.crashes, detector.expected = state.crashes, state.expected
        detector.maximum, detector.frozen = state.maximum, state.frozen
        if detector.can_hold and (detector.crashes or detector.expected):
            detector._evidence = detector._log_evidence()
        return detector
