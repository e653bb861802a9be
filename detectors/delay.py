"""Reporting delay by arm: odds corrected where crashes of the exposed arm are heard of sooner than the others'.

An update restarts devices, and a device that has just started reports at once; one that is on the road reports tonight.
Then the first hour shows the exposed arm's crashes and hides the control's, and a healthy rollout looks bad. Plain
numbers only. Invariant: a correction is never below 1, so it can cost crashes and never make evidence.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.sequential import Floats

# Bin i holds delays below 2^i / 4 seconds: a quarter of a second to 36 hours.
BINS: Final = 20
# With fewer delays on record nothing is known of how reports arrive, and nothing is corrected.
HISTORY_LEAST: Final = 30
# What is known of all devices counts as one crash for the exposed arm, until it has its own.
_PRIOR: Final = 1.0
CORRECTION_MAX: Final = 1e4
# Beyond it both counts are halved: how reports arrive changes over the months.
_HISTORY_MOST: Final = 4096

Counts = npt.NDArray[np.int64]


def delay_bin(delay_seconds: npt.ArrayLike) -> Counts:
    """Return the bin of each delay, shape as given; negative delays count as none."""
    delays = np.maximum(np.asarray(delay_seconds, dtype=np.float64), 0.0)
    bins: Counts = np.clip(np.ceil(np.log2(np.maximum(delays * 4.0, 1.0))).astype(np.int64), 0, BINS - 1)
    return bins


class DelayHistory:
    """How soon crashes of devices that are not exposed to anything new are heard of: counts by delay.

    One for each product, over all its rollouts' control arms, so that most of it is older than the rollout it is used
    for: in a rollout's first hour only the quick reports of that hour have come, which would hide the slow ones.
    """

    def __init__(self, counts: Sequence[int] | None = None) -> None:
        self._counts: Counts = np.zeros(BINS, dtype=np.int64) if counts is None else np.array(counts, dtype=np.int64)

    def add(self, delay_seconds: npt.ArrayLike) -> None:
        """Note the delays of crashes outside the exposed arm."""
        self._counts += np.bincount(np.atleast_1d(delay_bin(delay_seconds)), minlength=BINS)
        if self._counts.sum() > _HISTORY_MOST:
            self._counts = self._counts // 2

    @property
    def known(self) -> bool:
        """Tell whether there are delays enough to say anything."""
        return int(self._counts.sum()) >= HISTORY_LEAST

    def completeness(self) -> Floats:
        """Return the share of crashes that are heard of within each bin's delay: shape (20,), rising to 1."""
        total = self._counts.sum()
        share: Floats = (np.cumsum(self._counts) + 0.5) / (total + 0.5)
        return share

    def snapshot(self) -> list[int]:
        """Return the state: `DelayHistory` of it goes on alike."""
        return [int(count) for count in self._counts]


class DelayCorrectionState(msgspec.Struct, kw_only=True):
    """What `DelayCorrection.snapshot` gives."""

    exposed: list[int]


class DelayCorrection:
    """The factor on the odds of a crash being an exposed one, by how late it was heard of.

    Model. With G_e(d) and G_c(d) the shares of the arms' crashes that are heard of within d, a crash heard of at
    delay d is an exposed one with odds rho * w / (1 - w) * c, c = max(1, G_e(d) / G_c(d)). Where the exposed arm is
    quicker and the quicker the sooner (a monotone likelihood ratio), the ratio of completeness is never smaller than
    that of the densities at d, which is the exact factor: known G would overstate, never understate.

    G_c comes from `DelayHistory`; G_e from this rollout's exposed crashes before this one, with the history as one
    crash more. So equal arms are corrected by little (their G_e strays about G_c), and an arm that is ten times quicker
    is noticed at its second crash.

    Assumptions. Control crashes arrive as the product's crashes did before. Delays are not told by the device but
    measured from its event time to its arrival, so a device clock that runs ahead looks quick.

    Example:
        Reports usually take hours; those of the exposed arm come within a second.

        >>> history = DelayHistory()
        >>> history.add(np.full(99, 7200.0)), history.add([0.5])
        (None, None)
        >>> correction = DelayCorrection()
        >>> [round(float(correction.factor(history, 0.5)), 1) for _ in range(3) if correction.add(0.5) is None]
        [34.0, 45.0, 50.5]

    Source: Lagakos, Barraj and De Gruttola (1988), "Nonparametric analysis of truncated survival data", for what right
    truncation does to early counts; the ratio of completeness is that of two truncated counts.
    """

    def __init__(self) -> None:
        self._exposed: Counts = np.zeros(BINS, dtype=np.int64)

    def add(self, delay_seconds: float) -> None:
        """Note the delay of an exposed crash, after its factor was asked for."""
        self._exposed[int(delay_bin(delay_seconds))] += 1

    def factor(self, history: DelayHistory, delay_seconds: float) -> float:
        """Return c for a crash heard of after so long, 1 or more; 1 while the history knows nothing."""
        if not history.known:
            return 1.0
        place = int(delay_bin(delay_seconds))
        usual = float(history.completeness()[place])
        here = (_PRIOR * usual + float(self._exposed[: place + 1].sum())) / (_PRIOR + float(self._exposed.sum()))
        return min(max(1.0, here / usual), CORRECTION_MAX)

    def snapshot(self) -> DelayCorrectionState:
        """Return the state; `restore` of it goes on alike."""
        return DelayCorrectionState(exposed=[int(count) for count in self._exposed])

    @classmethod
    def restore(cls, state: DelayCorrectionState) -> "DelayCorrection":
        """Build what `state` was taken from."""
        correction = cls()
        correction._exposed = np.array(state.exposed, dtype=np.int64)
        return correction


def corrected(share: Floats, factor: npt.ArrayLike) -> Floats:
    """Return shares whose odds are multiplied by factors: w c / (w c + 1 - w).

    Example:
        >>> round(float(corrected(np.array(0.1), 9.0)), 6)
        0.5
    """
    odds = share * np.asarray(factor, dtype=np.float64)
    result: Floats = odds / (odds + 1.0 - share)
    return result
