"""Rate ratio with concurrent control: is a crash exposed more often than the exposed share at risk explains?

The first of the methods; the tracker feeds it one event per first crash, in order. It holds plain numbers only, and it
never forgets and never rescores: what was added stays added, so its evidence is valid whenever somebody looks.
"""

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

POINTS: Final = 32
RATIO_MAX: Final = 4096.0
# Low ratios lie closer together than high ones: a small harm needs many crashes, and over many crashes neighbours on
# the grid drift apart. With 1 (log-spaced) ratio 2 takes 1.40 times Wald's bound at alpha 1e-3, with 1.5 1.34; beyond
# 2 the highest ratios are so far apart that two crashes are no longer enough for a thousand.
_BEND: Final = 1.5
# An event whose share is told as 0 or 1 still has a device on the other side of the fraction: the one that crashed.
SHARE_MIN: Final = 1e-9
_BATCH: Final = 4096


def ratio_grid(tolerated_ratio: float, ratio_max: float = RATIO_MAX, points: int = POINTS) -> Floats:
    """Return `points` ratios above `tolerated_ratio`, the last one `ratio_max`.

    The i-th of n is tolerated * (max / tolerated) ** ((i / n) ** 1.5): nearly log-spaced, closer where ratios are low.

    Raises:
        ValueError: the grid would be empty or would not lie above the tolerated ratio.
    """
    if not (0 < tolerated_ratio < ratio_max) or points < 1:
        raise ValueError(
            f"no ratios between {tolerated_ratio} and {ratio_max} ({points} points): lower the tolerated ratio"
        )
    steps = (np.arange(1, points + 1, dtype=np.float64) / points) ** _BEND
    grid: Floats = tolerated_ratio * np.exp(steps * np.log(ratio_max / tolerated_ratio))
    return grid


def log_mean_exp(logs: Floats) -> Floats:
    """Return the log of the mean of `exp(logs)` over the last axis, without overflow."""
    top = logs.max(axis=-1)
    mean: Floats = top + np.log(np.exp(logs - top[..., None]).mean(axis=-1))
    return mean


class RateRatioState(msgspec.Struct, kw_only=True):
    """What `RateRatio.snapshot` gives: enough to go on bit for bit."""

    tolerated_ratio: float
    log_m: bytes
    maximum: float
    exposed: int
    control: int
    share_sum: float


class RateRatio:
    """Evidence that crashes fall on the exposed arm more often than `tolerated_ratio` allows.

    Model. Given that a device of a cell crashes, it is an exposed one with odds rho * w / (1 - w), w being the exposed
    share of the devices at risk at that moment. For the crashes i so far, with x_i = 1 for an exposed device,

        log M(rho) = sum_i [ x_i log(rho / rho0) - log((rho w_i + 1 - w_i) / (rho0 w_i + 1 - w_i)) ]

    and the evidence is the mean of M over 32 rho above rho0 (`ratio_grid`). Under any true ratio up to rho0 the mean is
    a supermartingale from 1, so P(it ever reaches 1 / alpha) <= alpha (Ville), however often one looks.

    Assumptions. w is the share, or an upper bound of it, known before the crash: an overstated w costs crashes, an
    understated one makes false alarms. One event a device. Devices of a cell crash alike but for the update: whatever
    hits both arms alike cancels.

    A false alarm costs a stopped rollout of a good update, at most alpha of the rollouts.

    Args:
        tolerated_ratio: rho0, the rate ratio that is still no harm.

    Example:
        Exposed crashes in a row at a share of 0.1; alpha = 1e-6 is reached at index 7, the eighth crash.

        >>> detector = RateRatio(tolerated_ratio=1.5)
        >>> needed = np.log(1e6)
        >>> fired = [i for i in range(12) if detector.update([True], [0.1]) >= needed]
        >>> fired[0]
        7

    Source: Wald (1945), sequential probability ratio test; Robbins (1970), mixtures of them; Ramdas et al. (2023),
    "Game-theoretic statistics and safe anytime-valid inference", for the e-process reading.
    """

    def __init__(self, tolerated_ratio: float = 1.5) -> None:
        self.tolerated_ratio = tolerated_ratio
        self.ratios = ratio_grid(tolerated_ratio)
        self._gain = np.log(self.ratios / tolerated_ratio)
        self._log_m: Floats = np.zeros(POINTS)
        self.maximum = 0.0
        self.peak = 0.0
        self.exposed = 0
        self.control = 0
        self._share_sum = 0.0
        self._evidence = 0.0

    @property
    def log_evidence(self) -> float:
        """The natural log of the e-value now."""
        return self._evidence

    @property
    def events(self) -> int:
        """How many crashes were scored."""
        return self.exposed + self.control

    @property
    def expected_share(self) -> float | None:
        """The mean share over the scored events: what health would give; None before the first."""
        return self._share_sum / self.events if self.events else None

    def update(self, exposed: npt.ArrayLike, share: npt.ArrayLike) -> float:
        """Score events in order of arrival and return the log evidence after the last.

        The highest evidence after any single event is kept in `maximum`, that of this call's events in `peak`; a batch
        gives, bit for bit, what its events give one by one.

        Args:
            exposed: shape (n,): whether the device that crashed was exposed.
            share: shape (n,): upper bound of the exposed share at risk, 0 to 1.

        Raises:
            ValueError: the shapes differ, or a share is no number between 0 and 1.
        """
        x = np.asarray(exposed, dtype=bool)
        w = np.asarray(share, dtype=np.float64)
        if x.ndim != 1 or x.shape != w.shape:
            raise ValueError(f"exposed has shape {x.shape} and share {w.shape}: give one of each per event")
        if not bool(np.all((w >= 0.0) & (w <= 1.0))):
            raise ValueError("a share lies outside 0 to 1 or is no number: pass exposed / (exposed + control) at risk")
        self.peak = self._evidence if not len(x) else -np.inf
        for start in range(0, len(x), _BATCH):
            self._update_batch(x[start : start + _BATCH], w[start : start + _BATCH])
        return self._evidence

    def _update_batch(self, x: npt.NDArray[np.bool_], w: Floats) -> None:
        clipped = np.clip(w, SHARE_MIN, 1.0 - SHARE_MIN)[:, None]
        cost = np.log1p((self.ratios - 1.0) * clipped) - np.log1p((self.tolerated_ratio - 1.0) * clipped)
        steps = np.where(x[:, None], self._gain, 0.0) - cost
        # The state goes in as the first row, so that sums run in the same order as event by event.
        path = np.cumsum(np.concatenate([self._log_m[None, :], steps]), axis=0)[1:]
        evidence = log_mean_exp(path)
        self._log_m = path[-1].copy()
        self._evidence = float(evidence[-1])
        self.peak = max(self.peak, float(evidence.max()))
        self.maximum = max(self.maximum, self.peak)
        count = int(np.count_nonzero(x))
        self.exposed += count
        self.control += len(x) - count
        for one in w.tolist():
            self._share_sum += one

    def snapshot(self) -> RateRatioState:
        """Return the state; `restore` of it goes on bit for bit."""
        return RateRatioState(
            tolerated_ratio=self.tolerated_ratio,
            log_m=self._log_m.tobytes(),
            maximum=self.maximum,
            exposed=self.exposed,
            control=self.control,
            share_sum=self._share_sum,
        )

    @classmethod
    def restore(cls, state: RateRatioState) -> "RateRatio":
        """Build the detector that `state` was taken from."""
        detector = cls(state.tolerated_ratio)
        detector._log_m = np.frombuffer(state.log_m, dtype=np.float64).copy()
        detector.maximum = state.maximum
        detector.exposed = state.exposed
        detector.control = state.control
        detector._share_sum = state.share_sum
        if detector.events:
            detector._evidence = float(log_mean_exp(detector._log_m))
        return detector
