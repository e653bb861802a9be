"""How many crashes the raw rate ratio needs to kill, against Wald's bound, which no test can beat on average.

Computed, not simulated: with one share for all crashes the evidence depends on how many there were and how many of
them were exposed, so the mean is exact. A crash counts whole, in either arm, up to and with the one that crosses. The
bound log(1/alpha) / KL knows no whole crashes: at a few crashes even a test that knows the ratio, printed beside it,
needs a third more. Tests hold the computation against `RateRatio` itself.
"""

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from deploy.bench.figures import Figure, at_most, printed
from detectors.sequential import Floats, log_mean_exp, ratio_grid

RATIOS: Final = (2.0, 5.0, 10.0, 100.0, 1000.0)
SHARES: Final = (0.01, 0.1, 0.5)
# What is allowed, in times of Wald's bound, by alpha.
TIMES_MOST: Final = {1e-6: 1.3, 1e-3: 1.4}
# The bound is asked for against "no worse than the control"; the policy's own tolerance is held to the same.
TOLERATED: Final = (1.0, 1.5)
# Runs that have not crossed yet, out of all, when the rest is no longer followed.
_REST: Final = 1e-9


class Harm(NamedTuple):
    """A true ratio, the exposed share at risk, the ratio that is tolerated, and the risk of a false kill."""

    ratio: float
    share: float
    tolerated: float
    alpha: float

    @property
    def chance(self) -> float:
        """The chance that a crash is an exposed one."""
        return self.ratio * self.share / (self.ratio * self.share + 1.0 - self.share)

    @property
    def wald(self) -> float:
        """Wald's bound of the mean number of crashes."""
        p, q = self.chance, self._replace(ratio=self.tolerated).chance
        gain = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        return -math.log(self.alpha) / gain


def mean_crashes(harm: Harm, ratios: Floats) -> float:
    """Return the mean number of crashes until the mean over `ratios` of the likelihood ratios reaches 1 / alpha."""
    chance = harm.chance
    most = int(6 * harm.wald) + 60
    least_exposed = _boundary(harm, ratios, most)
    # Chance of so many exposed among the crashes so far, of the runs that have not crossed.
    going = np.zeros(most + 2)
    going[0] = 1.0
    mean = 0.0
    for crashes, needed in enumerate(least_exposed.tolist(), start=1):
        rest = float(going.sum())
        if rest < _REST:
            break
        mean += rest
        next_going = going * (1.0 - chance)
        next_going[1:] += going[:-1] * chance
        if needed <= crashes:
            next_going[needed:] = 0.0
        going = next_going
    return mean


def _boundary(harm: Harm, ratios: Floats, most: int) -> npt.NDArray[np.int64]:
    """Return how many exposed among 1, 2, ... `most` crashes are enough; by bisection, as evidence rises with them."""
    crashes = np.arange(1, most + 1)
    gain = np.log(ratios / harm.tolerated)
    cost = np.log1p((ratios - 1.0) * harm.share) - np.log1p((harm.tolerated - 1.0) * harm.share)
    low, high = np.zeros(most, dtype=np.int64), crashes + 1
    while bool((low < high).any()):
        middle = (low + high) // 2
        enough = log_mean_exp(middle[:, None] * gain - crashes[:, None] * cost) >= -math.log(harm.alpha)
        searching = low < high
        low = np.where(searching & ~enough, middle + 1, low)
        high = np.where(searching & enough, middle, high)
    return high


def measure() -> list[Figure]:
    """Return crashes to kill in times of Wald's bound, and beside it that of a test which knows the ratio."""
    figures = []
    for tolerated in TOLERATED:
        grid = ratio_grid(tolerated)
        for alpha, times_most in TIMES_MOST.items():
            for ratio in RATIOS:
                for share in SHARES:
                    harm = Harm(ratio, share, tolerated, alpha)
                    mean, best = mean_crashes(harm, grid), mean_crashes(harm, np.array([ratio]))
                    text = f"ratio {ratio:g} of share {share:g} against {tolerated:g}, alpha {alpha:g}"
                    figures.append(printed(f"crashes to kill, {text}", mean, "crashes"))
                    beside = f"{text} (a test that knows the ratio: {best / harm.wald:.3f})"
                    figures.append(at_most(f"... by Wald's bound, {beside}", mean / harm.wald, "times", times_most))
    return figures
