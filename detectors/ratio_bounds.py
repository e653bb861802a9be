"""Bounds of a rate ratio that hold at any moment one looks: how bad it is at least, and at most.

Attribution clears a suspect by them. The interval in a verdict (`interval`) is narrower and valid once; these hold over
the whole stream. Plain numbers only; the same events as `sequential`.
"""

import math
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.sequential import SHARE_MIN, Floats

RATIO_MIN: Final = 1 / 16
RATIO_MAX: Final = 4096.0
# Four points to the factor two: a bound is up to 19 % wider than the data allow.
_POINTS: Final = 65
_RATIOS: Final[Floats] = np.geomspace(RATIO_MIN, RATIO_MAX, _POINTS)
_LOG_RATIOS: Final[Floats] = np.log(_RATIOS)
_LOG_RANKS: Final[Floats] = np.log(np.arange(1, _POINTS, dtype=np.float64))
_BATCH: Final = 1024

Flags = npt.NDArray[np.bool_]


class RatioBoundsState(msgspec.Struct, kw_only=True):
    """What `RatioBounds.snapshot` gives: enough to go on bit for bit."""

    alpha: float
    log_low: bytes
    log_high: bytes
    not_below: bytes
    not_above: bytes


class RatioBounds:
    """Lower and upper bound of the rate ratio, each wrong at any time with probability at most alpha.

    Model. `RateRatio`'s: a crash is exposed with odds rho w / (1 - w). With L_j the likelihood of 65 log-spaced ratios
    rho_j from 1/16 to 4096, "the ratio is at least rho_k" is rejected once the mean over j < k of L_j / L_k has reached
    1 / alpha. The likelihood ratio is monotone in the ratio, so that mean is a supermartingale under every ratio from
    rho_k up. The upper bound is the least rho_k from which on all are rejected; the lower bound is its mirror image.

    Assumptions. Those of `RateRatio`; the lower bound is computed with an upper bound of the share, the upper bound
    with a lower one. One ratio for all strata: where harm is in some of them, the bounds are of a mean.

    A false alarm is a bound on the wrong side: the guilty cleared, or the innocent made to look worse.

    Args:
        alpha: chance of each bound ever being wrong.

    Example:
        Crashes at a share of 0.5, every other one exposed: that the ratio is at most 4 is known from index 39 on.

        >>> bounds, highs = RatioBounds(alpha=1e-3), []
        >>> for i in range(80):
        ...     bounds.update([i % 2 == 0], [0.5], [0.5])
        ...     highs.append(bounds.high)
        >>> [i for i, high in enumerate(highs) if high < 4.01][0], round(bounds.low, 2)
        (39, 0.35)

    Source: Robbins (1970), "Statistical methods related to the law of the iterated logarithm", for mixtures; Howard et
    al. (2021), "Time-uniform, nonparametric, nonasymptotic confidence sequences", for inverting them.
    """

    def __init__(self, alpha: float = 1e-3) -> None:
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
        self.alpha = alpha
        self._needed = -math.log(alpha)
        # Log likelihoods of the grid: with the shares' upper bounds for `low`, with their lower bounds for `high`.
        self._log_low: Floats = np.zeros(_POINTS)
        self._log_high: Floats = np.zeros(_POINTS)
        self._not_below: Flags = np.zeros(_POINTS, dtype=bool)
        self._not_above: Flags = np.zeros(_POINTS, dtype=bool)

    @property
    def low(self) -> float:
        """The ratio is at least this; 0 where nothing is known."""
        rejected = int(np.argmin(np.append(self._not_below, False)))
        return float(_RATIOS[rejected - 1]) if rejected else 0.0

    @property
    def high(self) -> float:
        """The ratio is at most this; infinite where nothing is known."""
        rejected = int(np.argmin(np.append(self._not_above[::-1], False)))
        return float(_RATIOS[_POINTS - rejected]) if rejected else math.inf

    def update(self, exposed: npt.ArrayLike, share: npt.ArrayLike, share_low: npt.ArrayLike) -> None:
        """Add crashes in order of arrival; a batch gives, bit for bit, what its events give one by one.

        Args:
            exposed: shape (n,): whether the device that crashed was exposed.
            share: shape (n,): upper bound of the exposed share at risk.
            share_low: shape (n,): lower bound of it.

        Raises:
            ValueError: the shapes differ, or shares are not 0 <= share_low <= share <= 1.
        """
        x = np.asarray(exposed, dtype=bool)
        high, low = np.asarray(share, dtype=np.float64), np.asarray(share_low, dtype=np.float64)
        if x.ndim != 1 or x.shape != high.shape or x.shape != low.shape:
            raise ValueError(f"exposed has shape {x.shape}, shares {high.shape} and {low.shape}: give one per event")
        if not bool(np.all((low >= 0.0) & (low <= high) & (high <= 1.0))):
            raise ValueError("shares must be 0 <= share_low <= share <= 1")
        for start in range(0, len(x), _BATCH):
            one = slice(start, start + _BATCH)
            self._update_batch(x[one], high[one], low[one])

    def _update_batch(self, x: Flags, high: Floats, low: Floats) -> None:
        path = _path(self._log_low, x, high)
        above = np.logaddexp.accumulate(path[:, ::-1], axis=1)[:, -2::-1] - _LOG_RANKS[::-1]
        self._not_below[:-1] |= (above - path[:, :-1] >= self._needed).any(axis=0)
        self._log_low = path[-1].copy()
        path = _path(self._log_high, x, low)
        below = np.logaddexp.accumulate(path, axis=1)[:, :-1] - _LOG_RANKS
        self._not_above[1:] |= (below - path[:, 1:] >= self._needed).any(axis=0)
        self._log_high = path[-1].copy()

    def snapshot(self) -> RatioBoundsState:
        """Return the state; `restore` of it goes on bit for bit."""
        return RatioBoundsState(
            alpha=self.alpha,
            log_low=self._log_low.tobytes(),
            log_high=self._log_high.tobytes(),
            not_below=self._not_below.tobytes(),
            not_above=self._not_above.tobytes(),
        )

    @classmethod
    def restore(cls, state: RatioBoundsState) -> "RatioBounds":
        """Build the bounds that `state` was taken from."""
        bounds = cls(state.alpha)
        bounds._log_low = np.frombuffer(state.log_low, dtype=np.float64).copy()
        bounds._log_high = np.frombuffer(state.log_high, dtype=np.float64).copy()
        bounds._not_below = np.frombuffer(state.not_below, dtype=bool).copy()
        bounds._not_above = np.frombuffer(state.not_above, dtype=bool).copy()
        return bounds


def _path(before: Floats, x: Flags, share: Floats) -> Floats:
    """Return the grid's log likelihoods after each event, up to what all ratios have in common: shape (n, points)."""
    w = np.clip(share, SHARE_MIN, 1.0 - SHARE_MIN)[:, None]
    steps = np.where(x[:, None], _LOG_RATIOS, 0.0) - np.log1p((_RATIOS - 1.0) * w)
    path: Floats = np.cumsum(np.concatenate([before[None, :], steps]), axis=0)[1:]
    return path
