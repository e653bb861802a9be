"""One suspect's evidence, conditional on its rivals: crashes are compared among devices on the same other rollouts.

Feeds `attribution`. Plain numbers and the strata's names only; the caller gives the exposed share *within* the stratum,
which is what a cell split by rivals (`...|r-ab12+r-cd34`) says.
"""

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.ratio_bounds import RatioBounds, RatioBoundsState
from detectors.sequential import RateRatio, RateRatioState

STRATA_MAX: Final = 64
OTHER: Final = "other"
# A crash can tell a suspect from its rivals if both kinds of devices were there: neither arm below one in a thousand.
TELLING_SHARE: Final = 1e-3


class StratumTally(msgspec.Struct, array_like=True):
    """Crashes in one stratum.

    Attributes:
        exposed: crashes of devices on the suspect.
        control: crashes of devices without it.
        expected: how many of them would be exposed if the suspect made no difference.
    """

    exposed: int = 0
    control: int = 0
    expected: float = 0.0


class ConditionalRatioState(msgspec.Struct, kw_only=True):
    """What `ConditionalRatio.snapshot` gives: enough to go on bit for bit."""

    ratio: RateRatioState
    bounds: RatioBoundsState
    strata: dict[str, StratumTally]
    telling: int


class ConditionalRatio:
    """Evidence that a suspect is harmful whatever its rivals do, and bounds of its own rate ratio.

    Model. `RateRatio`'s, with w the suspect's share among devices at risk *of the same presence of rivals*. Whatever a
    rival does, it does to both arms of such a stratum. Under "the suspect is no worse than tolerated" each crash's bet
    is fair given its stratum and the past, so the evidence is a supermartingale beside all other suspects', and means
    of theirs are evidence too. The marginal evidence is that of another `RateRatio` over cells that are not split.

    Assumptions. Those of `RateRatio` within a stratum, and that every harmful rival that shares devices is in the
    strata, or allowed for in the share (`confounding.confounded_share`). If two updates crash only together, the
    evidence rises for both, as it should: either one's removal helps.

    A false alarm costs a stopped rollout of a good update, while the bad one goes on.

    Args:
        tolerated_ratio: rho0.
        alpha_bounds: chance that a bound of the ratio is ever wrong.

    Example:
        An innocent update on half of the devices that have the guilty one: not split, the crashes look like its own.

        >>> split, pooled = ConditionalRatio(), RateRatio()
        >>> for i in range(60):
        ...     _ = split.update([i % 2 == 0], [0.5], ["guilty"])
        ...     _ = pooled.update([i % 2 == 0], [0.1])
        >>> pooled.log_evidence > 13.8, split.log_evidence < 0, round(split.bounds.high, 1)
        (True, True, 3.4)

    Source: Mantel and Haenszel (1959), "Statistical aspects of the analysis of data from retrospective studies of
    disease", for the stratified comparison.
    """

    def __init__(self, tolerated_ratio: float = 1.5, alpha_bounds: float = 1e-3) -> None:
        self.ratio = RateRatio(tolerated_ratio)
        self.bounds = RatioBounds(alpha_bounds)
        self.strata: dict[str, StratumTally] = {}
        self.telling = 0

    @property
    def log_evidence(self) -> float:
        """The natural log of the conditional e-value now; pass this on, not its maximum (see `attribution`)."""
        return self.ratio.log_evidence

    def update(
        self,
        exposed: npt.ArrayLike,
        share: npt.ArrayLike,
        stratum: list[str],
        share_low: npt.ArrayLike | None = None,
    ) -> float:
        """Score crashes in order of arrival and return the log evidence after the last.

        A batch gives, bit for bit, what its events give one by one.

        Args:
            exposed: shape (n,): whether the device that crashed was on the suspect.
            share: shape (n,): upper bound of the suspect's share at risk within the crash's stratum.
            stratum: the n strata's names: which rivals the device was on. All are scored; tallies are kept of 64.
            share_low: shape (n,): lower bound of the share; `share` if it is known exactly.

        Raises:
            ValueError: the shapes differ, or shares are not 0 <= share_low <= share <= 1.
        """
        x, w = np.asarray(exposed, dtype=bool), np.asarray(share, dtype=np.float64)
        if x.shape != (len(stratum),):
            raise ValueError(f"exposed has shape {x.shape}, but there are {len(stratum)} strata: give one per event")
        low = w if share_low is None else np.asarray(share_low, dtype=np.float64)
        # The bounds check everything, so nothing is scored in one of the two only.
        self.bounds.update(x, w, low)
        self.ratio.update(x, w)
        self.telling += int(np.count_nonzero((low >= TELLING_SHARE) & (w <= 1.0 - TELLING_SHARE)))
        for name, was, one in zip(stratum, x.tolist(), w.tolist(), strict=True):
            tally = self._tally(name)
            tally.exposed += was
            tally.control += not was
            tally.expected += one
        return self.log_evidence

    def _tally(self, name: str) -> StratumTally:
        if name not in self.strata and len(self.strata) >= STRATA_MAX - 1:
            name = OTHER
        return self.strata.setdefault(name, StratumTally())

    def snapshot(self) -> ConditionalRatioState:
        """Return the state; `restore` of it goes on bit for bit."""
        return ConditionalRatioState(
            ratio=self.ratio.snapshot(),
            bounds=self.bounds.snapshot(),
            strata={name: msgspec.structs.replace(tally) for name, tally in self.strata.items()},
            telling=self.telling,
        )

    @classmethod
    def restore(cls, state: ConditionalRatioState) -> "ConditionalRatio":
        """Build the evidence that `state` was taken from."""
        suspect = cls(state.ratio.tolerated_ratio, state.bounds.alpha)
        suspect.ratio = RateRatio.restore(state.ratio)
        suspect.bounds = RatioBounds.restore(state.bounds)
        suspect.strata = {name: msgspec.structs.replace(tally) for name, tally in state.strata.items()}
        suspect.telling = state.telling
        return suspect
