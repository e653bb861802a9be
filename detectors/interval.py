"""The estimated rate ratio with its interval, from crashes at differing exposed shares.

For people and for the health check, not for the kill: an interval is valid when looked at once, evidence always.
Memory is bounded: the shares are kept as a histogram of their log odds, not one by one.
"""

from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.sequential import SHARE_MIN, Floats

_LOGIT_MAX: Final = 21.0
_BINS_PER_UNIT: Final = 10
_BINS: Final = int(2 * _LOGIT_MAX * _BINS_PER_UNIT) + 1
_LOG_RATIO_MAX: Final = 23.0
_COARSE: Final = np.linspace(-_LOG_RATIO_MAX, _LOG_RATIO_MAX, 47)
_FINE: Final = np.linspace(0.0, 1.0, 33)
# A 95 % interval has two sides of 2.5 %.
Z95: Final = 1.959964


_WANTED: Final = np.array([Z95, 0.0, -Z95])


def _score_gap(log_ratio: Floats, exposed: int, counts: Floats, logits: Floats) -> Floats:
    """Return score less wanted times its deviation, for the three roots: falls with the log ratio; shape (3, n)."""
    p = 1.0 / (1.0 + np.exp(-(log_ratio[..., None] + logits)))
    score = exposed - p @ counts
    deviation = np.sqrt((p * (1.0 - p)) @ counts)
    gap: Floats = score - _WANTED[:, None] * deviation
    return gap


class Interval(NamedTuple):
    """An estimate with its 95 % bounds; None where the crashes set no limit."""

    estimate: float | None
    low: float
    high: float | None


class RatioState(msgspec.Struct, kw_only=True):
    """What `RatioEstimate.snapshot` gives."""

    exposed: int
    bins: list[int]
    counts: list[int]
    sums: list[float]


class RatioEstimate:
    """Rate ratio from crashes, conditional on the exposed share at each.

    Model: crash i is exposed with probability p_i = rho w_i / (rho w_i + 1 - w_i). The estimate solves
    sum x_i = sum p_i; the interval is that of the score test, (sum x_i - sum p_i)^2 = z^2 sum p_i (1 - p_i), which
    keeps its coverage with few crashes and with none on one side.

    Source: Miettinen and Nurminen (1985), "Comparative analysis of two rates", for score limits of a conditional
    binomial; Breslow and Day (1987), IARC 82, 3.4, for strata of differing shares.

    Example:
        >>> estimate = RatioEstimate()
        >>> estimate.add(np.array([True] * 8 + [False] * 2), np.full(10, 0.2))
        >>> [round(value, 1) for value in estimate.interval()]
        [16.0, 3.8, 66.6]
    """

    def __init__(self) -> None:
        self.exposed = 0
        self._counts = np.zeros(_BINS, dtype=np.int64)
        self._sums: Floats = np.zeros(_BINS)

    @property
    def events(self) -> int:
        """How many crashes were added."""
        return int(self._counts.sum())

    def add(self, exposed: npt.NDArray[np.bool_], share: Floats) -> None:
        """Add crashes: shapes (n,), whether exposed, and the exposed share at risk."""
        w = np.clip(share, SHARE_MIN, 1.0 - SHARE_MIN)
        logit = np.log(w) - np.log1p(-w)
        bins = np.clip(((logit + _LOGIT_MAX) * _BINS_PER_UNIT).astype(np.int64), 0, _BINS - 1)
        np.add.at(self._counts, bins, 1)
        np.add.at(self._sums, bins, logit)
        self.exposed += int(np.count_nonzero(exposed))

    def interval(self) -> Interval:
        """Return the estimate and its 95 % interval."""
        used = np.flatnonzero(self._counts)
        n = int(self._counts.sum())
        if n == 0:
            return Interval(None, 0.0, None)
        counts = self._counts[used].astype(np.float64)
        logits = self._sums[used] / counts
        # The roots of score = +z (low), 0 (estimate) and -z (high), each first between two points of a coarse grid.
        above = (_score_gap(_COARSE[None, :], self.exposed, counts, logits) > 0).sum(axis=1)
        begin = _COARSE[np.clip(above - 1, 0, len(_COARSE) - 2)]
        fine = begin[:, None] + _FINE[None, :]
        gap = _score_gap(fine, self.exposed, counts, logits)
        left = np.clip((gap > 0).sum(axis=1) - 1, 0, len(_FINE) - 2)[:, None]
        low_gap, high_gap = np.take_along_axis(gap, left, 1), np.take_along_axis(gap, left + 1, 1)
        part = np.clip(low_gap / np.maximum(low_gap - high_gap, 1e-300), 0.0, 1.0)
        roots = np.take_along_axis(fine, left, 1) + part * (_FINE[1] - _FINE[0])
        low, estimate, high = np.exp(roots[:, 0]).tolist()
        if self.exposed == 0:
            return Interval(0.0, 0.0, high)
        if self.exposed == n:
            return Interval(None, low, None)
        return Interval(estimate, low, high)

    def snapshot(self) -> RatioState:
        """Return the state; `restore` of it goes on bit for bit."""
        used = np.flatnonzero(self._counts)
        return RatioState(
            exposed=self.exposed,
            bins=used.tolist(),
            counts=self._counts[used].tolist(),
            sums=self._sums[used].tolist(),
        )

    @classmethod
    def restore(cls, state: RatioState) -> "RatioEstimate":
        """Build the estimate that `state` was taken from."""
        estimate = cls()
        estimate.exposed = state.exposed
        used = np.array(state.bins, dtype=np.int64)
        estimate._counts[used] = state.counts
        estimate._sums[used] = state.sums
        return estimate
