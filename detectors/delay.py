"""Reporting delay by arm: odds corrected while crashes of the exposed arm are heard of sooner than the others'.

An update restarts devices, and a device that has just started reports at once; one that is on the road reports tonight.
Then the first hour shows the exposed arm's crashes and hides the control's, and a healthy rollout looks bad. Plain
numbers only. Invariant: a correction is never below 1, so it can cost crashes and never make evidence.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.sequential import Floats

# Four bins to the doubling: bin i holds delays up to 0.25 * 2^(i / 4) seconds, the last one from 29 hours on.
_PER_DOUBLING: Final = 4
BINS: Final = 76
# A tenant group has a say of its own from so many delays on, and the median counts from so many groups on.
_GROUP_LEAST: Final = 10
_GROUPS_LEAST: Final = 3
# Beyond it a group's counts are halved: how reports arrive changes over the months.
_HISTORY_MOST: Final = 4096
CORRECTION_MAX: Final = 1e4
# With fewer delays on record little is known of how reports arrive.
HISTORY_LEAST: Final = 30
# Then no report is taken as sooner than this: a machine that crashed has to start first.
SOONEST_SECONDS: Final = 30.0
# What is believed before any delay is on record, with the weight of so many: slow ones are likelier than quick ones, in
# proportion to the logarithm of the delay, up to 29 hours.
PRIOR_DELAYS: Final = 10
_PRIOR: Final = PRIOR_DELAYS * np.arange(1.0, BINS + 1) / (BINS * (BINS + 1) / 2)

Counts = npt.NDArray[np.int64]


def delay_bin(delay_seconds: npt.ArrayLike) -> Counts:
    """Return the bin of each delay, shape as given; negative delays count as none."""
    delays = np.maximum(np.asarray(delay_seconds, dtype=np.float64) * 4.0, 1.0)
    bins: Counts = np.clip(np.ceil(np.log2(delays) * _PER_DOUBLING - 1e-9).astype(np.int64), 0, BINS - 1)
    return bins


class DelayHistory:
    """How soon crashes of devices that are not exposed to anything new are heard of: counts by tenant group and delay.

    One for all rollouts, over their control arms, so that most of it is older than the rollout it is used for: in a
    rollout's first hour only the quick reports of that hour have come, which would hide the slow ones. Where three
    tenant groups or more have told ten delays each, the median of the groups counts, so that no one of them decides.
    """

    def __init__(self, counts: Mapping[int, Sequence[int]] | None = None) -> None:
        self._counts: dict[int, Counts] = {
            group: np.array(told, dtype=np.int64) for group, told in (counts or {}).items()
        }
        self._within: dict[int, float] = {}

    def add(self, group: int, delay_seconds: npt.ArrayLike) -> None:
        """Note the delays of crashes of a tenant group outside the exposed arm."""
        counts = self._counts.get(group)
        if counts is None:
            counts = self._counts[group] = np.zeros(BINS, dtype=np.int64)
        counts += np.bincount(np.atleast_1d(delay_bin(delay_seconds)), minlength=BINS)
        if counts.sum() > _HISTORY_MOST:
            counts //= 2
        self._within.clear()

    @property
    def known(self) -> bool:
        """Tell whether there are delays enough to say how reports arrive."""
        return sum(int(counts.sum()) for counts in self._counts.values()) >= HISTORY_LEAST

    def within(self, seconds: float) -> float:
        """Return the share of crashes that are heard of within so long, above 0 and at most 1."""
        place = int(delay_bin(seconds))
        found = self._within.get(place)
        if found is None:
            told = [counts + _PRIOR for counts in self._counts.values() if counts.sum() >= _GROUP_LEAST]
            if len(told) < _GROUPS_LEAST:
                told = [np.sum([*self._counts.values(), _PRIOR], axis=0)]
            shares = [float(counts[: place + 1].sum()) / float(counts.sum()) for counts in told]
            found = self._within[place] = statistics.median(shares)
        return found

    def snapshot(self) -> dict[int, list[int]]:
        """Return the state: `DelayHistory` of it goes on alike."""
        return {group: [int(count) for count in counts] for group, counts in self._counts.items()}


class DelayCorrectionState(msgspec.Struct, kw_only=True):
    """What `DelayCorrection.snapshot` gives."""

    exposed: int
    surprise: float


class DelayCorrection:
    """The factor on the odds of a crash being an exposed one, while not all crashes since the push began are heard of.

    Model. With G_e and G_c the shares of the arms' crashes that are heard of within some time, crashes that happened
    since the push began, t ago, arrive in the arms at rates in proportion to G_e(t) and G_c(t). So a crash that arrives
    now is an exposed one with odds rho * w / (1 - w) * c, c = max(1, G_e(t) / G_c(t)). Once all delays have passed c is
    1, however the arms differ: what was late has come.

    G_c is `DelayHistory`. Of G_e only one thing is asked: whether exposed crashes look heard of sooner than the
    history's. Those heard of at delay d_i, t_i after the push began, would give u_i = G_c(d_i) / G_c(t_i) evenly
    between 0 and 1 if the arms were alike, so that the mean of -log u_i is 1. Where it is larger, however little, the
    exposed arm counts as heard of at once, c = 1 / G_c(t); otherwise c = 1. An exposed crash's own delay counts before
    it is scored.

    Assumptions. Control crashes arrive as crashes did before. Before any is on record they are believed to arrive as
    `_PRIOR` says: half of them within 40 minutes. Where they are slower than that, too little is corrected. Delays are
    not told by the device but measured from its event time to its arrival, so a device clock that runs ahead looks
    quick.

    Example:
        Reports usually take two hours; those of the exposed arm come within a second, ten minutes after the push began.

        >>> history = DelayHistory()
        >>> history.add(0, np.linspace(0.0, 14_400.0, 1000))
        >>> correction = DelayCorrection()
        >>> round(correction.exposed(history, 1.0, 600.0), 1), round(correction.control(history, 86_400.0), 1)
        (21.6, 1.0)

    Source: Lagakos, Barraj and De Gruttola (1988), "Nonparametric analysis of truncated survival data", for arrivals
    that are truncated by the time of looking.
    """

    def __init__(self) -> None:
        self._exposed = 0
        self._surprise = 0.0

    def exposed(self, history: DelayHistory, delay_seconds: float, since_seconds: float) -> float:
        """Return c for an exposed crash heard of at a delay, so long after the push began, and learn from it."""
        least = delay_seconds if history.known else max(delay_seconds, SOONEST_SECONDS)
        soon = history.within(least) / history.within(max(since_seconds, least))
        self._exposed += 1
        self._surprise += -math.log(min(soon, 1.0))
        return self._factor(history, since_seconds)

    def control(self, history: DelayHistory, since_seconds: float) -> float:
        """Return c for a control crash heard of so long after the push began."""
        return self._factor(history, since_seconds)

    def _factor(self, history: DelayHistory, since_seconds: float) -> float:
        complete = history.within(since_seconds)
        return min(1.0 / complete, CORRECTION_MAX) if self._surprise > self._exposed else 1.0

    def snapshot(self) -> DelayCorrectionState:
        """Return the state; `restore` of it goes on alike."""
        return DelayCorrectionState(exposed=self._exposed, surprise=self._surprise)

    @classmethod
    def restore(cls, state: DelayCorrectionState) -> "DelayCorrection":
        """Build what `state` was taken from."""
        correction = cls()
        correction._exposed, correction._surprise = state.exposed, state.surprise
        return correction


def corrected(share: Floats, factor: npt.ArrayLike) -> Floats:
    """Return shares whose odds are multiplied by factors: w c / (w c + 1 - w).

    Example:
        >>> round(float(corrected(np.array(0.1), 9.0)), 6)
        0.5
    """
    odds = share * np.asarray(factor, dtype=np.float64)
    result: Floats = odds / (odds + (1.0 - share))
    return result
