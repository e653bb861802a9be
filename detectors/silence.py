"""Silence with matched controls: do devices that took the update fall silent more often than those that did not?

A machine in a boot loop cannot report; on 2024-07-19 most of the evidence was silence. Devices are compared only with
devices of the same cell last heard in the same minute. A stratum is scored once, when its time is up, and without each
tenant group in it as well, so that what any one group says can be left out.
"""

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from detectors.sequential import POINTS, Floats, log_mean_exp, ratio_grid
from detectors.tenants import NOBODY, ROWS


class Stratum(msgspec.Struct, frozen=True):
    """Devices of one cell last heard in one minute, and how many of them are overdue.

    Attributes:
        exposed: devices in the exposed arm, an upper bound where only a bound is known.
        control: the others.
        silent_exposed: overdue among the known exposed.
        silent_control: overdue among the others.
        without: tenant group to the same four counts without its devices, for each group in the stratum.
    """

    exposed: int
    control: int
    silent_exposed: int
    silent_control: int
    without: dict[int, tuple[int, int, int, int]] = {}


class SilenceState(msgspec.Struct, kw_only=True):
    """What `Silence.snapshot` gives: enough to go on bit for bit."""

    tolerated_ratio: float
    share_limit: float
    control_least: int
    log_m: bytes
    maximum: float
    exposed: int
    control: int
    share_sum: float
    frozen: int
    scored: int


def log_likelihood_ratios(stratum: Stratum, ratios: Floats, tolerated_ratio: float) -> Floats:
    """Return, for each odds ratio, the log likelihood ratio against the tolerated one, given how many fell silent.

    Which of a stratum's silent devices are exposed is hypergeometric when the arms are alike, and Fisher's noncentral
    hypergeometric when the odds of silence differ by rho: P(k) ~ C(n_e, k) C(n_c, s - k) rho^k.

    Args:
        stratum: the counts; the silent ones are no more than the arms hold.
        ratios: shape (n,), odds ratios.
        tolerated_ratio: the ratio of the hypothesis tested.

    Source: Fogarty (2015) and McCullagh and Nelder (1989), section 7.3, for the distribution.
    """
    silent = stratum.silent_exposed + stratum.silent_control
    low, high = max(0, silent - stratum.control), min(silent, stratum.exposed)
    if low >= high:
        return np.zeros(len(ratios))
    k = np.arange(low, high + 1, dtype=np.float64)
    ways = -(
        gammaln(k + 1)
        + gammaln(stratum.exposed - k + 1)
        + gammaln(silent - k + 1)
        + gammaln(stratum.control - silent + k + 1)
    )
    logs = np.log(np.append(ratios, tolerated_ratio))
    terms = ways[None, :] + logs[:, None] * k[None, :]
    top = terms.max(axis=1)
    totals = top + np.log(np.exp(terms - top[:, None]).sum(axis=1))
    result: Floats = stratum.silent_exposed * (logs[:-1] - logs[-1]) - (totals[:-1] - totals[-1])
    return result


class Silence:
    """Evidence that the exposed fall silent more often than `tolerated_ratio` allows.

    Model. In each stratum (cell, minute last heard), given that s of its n_e + n_c devices are silent, the split
    between the arms has odds ratio rho. log M(rho) adds up the strata's log likelihood ratios against rho0, and the
    evidence is the mean of M over 32 log-spaced rho. This is the event formula of the rate ratio with shares updated
    without replacement, taken over all orders in which the silent devices may have fallen silent: the order is not
    known, and scoring one chosen order would not be a martingale. `rows` has the evidence without any one tenant group:
    row j adds up strata from which group j's devices were taken out.

    Freezing. Where more than `share_limit` of at least `control_least` controls are silent too, something hits
    everybody (a power cut, a Friday at 17:30): the stratum is not scored, only counted in `frozen`. Freezing looks at
    the controls' outcome, so strata just below the limit are slightly picked; with enough controls the pick is far
    smaller than the tolerated ratio, which a test checks at the limit.

    Assumptions. A device is at most one event. Within a stratum, devices fall silent alike but for the update.

    A false alarm costs a stopped rollout of a good update.

    Args:
        tolerated_ratio: rho0, the odds ratio of silence that is still no harm.
        share_limit: share of silent controls above which a stratum is frozen.
        control_least: how many controls that share needs to count.

    Example:
        Strata of 40 exposed and 160 control devices with 6 and 1 silent; alpha = 1e-6 is reached at index 2.

        >>> detector = Silence(tolerated_ratio=1.5)
        >>> fired = [i for i in range(6) if detector.update([Stratum(40, 160, 6, 1)]) >= np.log(1e6)]
        >>> fired[0]
        2
        >>> quiet = Silence(tolerated_ratio=1.5)
        >>> quiet.update([Stratum(40, 160, 30, 100)]), quiet.frozen
        (0.0, 1)
    """

    def __init__(self, tolerated_ratio: float = 1.5, share_limit: float = 0.1, control_least: int = 100) -> None:
        self.tolerated_ratio = tolerated_ratio
        self.share_limit = share_limit
        self.control_least = control_least
        self._ratios = ratio_grid(tolerated_ratio)
        self._log_m: Floats = np.zeros((ROWS, POINTS))
        self.rows: Floats = np.zeros(ROWS)
        self.maximum = 0.0
        self.exposed = 0
        self.control = 0
        self.frozen = 0
        self.scored = 0
        self._share_sum = 0.0

    @property
    def log_evidence(self) -> float:
        """The natural log of the e-value now, nobody left out."""
        return float(self.rows[NOBODY])

    @property
    def expected_share(self) -> float | None:
        """The mean exposed share over the scored silent devices; None before the first."""
        events = self.exposed + self.control
        return self._share_sum / events if events else None

    def is_frozen(self, stratum: Stratum) -> bool:
        """Tell whether the controls themselves went quiet in this stratum."""
        return stratum.control >= self.control_least and stratum.silent_control > self.share_limit * stratum.control

    def update(self, strata: list[Stratum], *, frozen: bool = False) -> float:
        """Score strata, each of them once, and return the log evidence after the last.

        Args:
            strata: strata whose overdue time has passed.
            frozen: a wider look says that everybody is quiet: count the strata as frozen, score none.

        Raises:
            ValueError: a count is negative, or more devices are silent than there are.
        """
        for one in strata:
            self._check(one)
            if frozen or self.is_frozen(one):
                self.frozen += 1
                continue
            self.scored += 1
            silent = one.silent_exposed + one.silent_control
            if not silent:
                continue
            self.exposed += one.silent_exposed
            self.control += one.silent_control
            self._share_sum += silent * one.exposed / (one.exposed + one.control)
            self._add(one)
            self.rows = log_mean_exp(self._log_m)
            self.maximum = max(self.maximum, self.log_evidence)
        return self.log_evidence

    def _add(self, stratum: Stratum) -> None:
        whole = log_likelihood_ratios(stratum, self._ratios, self.tolerated_ratio)
        moves: Floats = np.repeat(whole[None], ROWS, axis=0)
        for group, counts in stratum.without.items():
            moves[group] = log_likelihood_ratios(Stratum(*counts), self._ratios, self.tolerated_ratio)
        self._log_m = self._log_m + moves

    @staticmethod
    def _check(stratum: Stratum) -> None:
        if min(stratum.silent_exposed, stratum.silent_control) < 0 or (
            stratum.silent_exposed > stratum.exposed or stratum.silent_control > stratum.control
        ):
            raise ValueError(f"{stratum}: silent devices must be between 0 and the arm's size")

    def snapshot(self) -> SilenceState:
        """Return the state; `restore` of it goes on bit for bit."""
        return SilenceState(
            tolerated_ratio=self.tolerated_ratio,
            share_limit=self.share_limit,
            control_least=self.control_least,
            log_m=self._log_m.tobytes(),
            maximum=self.maximum,
            exposed=self.exposed,
            control=self.control,
            share_sum=self._share_sum,
            frozen=self.frozen,
            scored=self.scored,
        )

    @classmethod
    def restore(cls, state: SilenceState) -> "Silence":
        """Build the detector that `state` was taken from."""
        detector = cls(state.tolerated_ratio, state.share_limit, state.control_least)
        log_m: npt.NDArray[np.float64] = np.frombuffer(state.log_m, dtype=np.float64)
        detector._log_m = log_m.reshape(ROWS, POINTS).copy()
        detector.maximum = state.maximum
        detector.exposed, detector.control = state.exposed, state.control
        detector._share_sum = state.share_sum
        detector.frozen, detector.scored = state.frozen, state.scored
        if detector.exposed or detector.control:
            detector.rows = log_mean_exp(detector._log_m)
        return detector
