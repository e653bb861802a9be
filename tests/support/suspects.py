"""Updates that travel together, with a known guilty one: crashes drawn from a fleet too large for them to deplete."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detectors.attribution import Suspect
from detectors.ratio_bounds import RatioBounds
from detectors.sequential import RateRatio, log_mean_exp, ratio_grid

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Suspects:
    """A fleet in which each device is on some of the suspects.

    Args:
        presence: part of the fleet by presence pattern, summing to 1: a tuple of as many flags as there are suspects.
        ratios: each suspect's true rate ratio; they multiply on devices that have several.
        devices: size of the fleet, for the counts of devices that findings speak of.
    """

    def __init__(
        self, presence: dict[tuple[bool, ...], float], ratios: Sequence[float], devices: int = 100_000
    ) -> None:
        assert math.isclose(sum(presence.values()), 1.0)
        self.count = len(ratios)
        self.patterns = np.array(list(presence), dtype=bool)
        self.parts = np.array(list(presence.values()))
        self.devices = devices
        rates = np.prod(np.where(self.patterns, ratios, 1.0), axis=1)
        self.chances = self.parts * rates / (self.parts @ rates)
        self.marginal_share: Floats = self.parts @ self.patterns
        self.share = np.array([[self._share(pattern, one) for one in range(self.count)] for pattern in presence])

    def _share(self, pattern: tuple[bool, ...], one: int) -> float:
        """Return the suspect's share among devices that are alike in all others."""
        alike = (np.delete(self.patterns, one, axis=1) == np.delete(np.array(pattern), one)).all(axis=1)
        return float(self.parts[alike & self.patterns[:, one]].sum() / self.parts[alike].sum())

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Return crashes as numbers of patterns."""
        return rng.choice(len(self.parts), size=shape, p=self.chances)

    def log_conditional(self, crashes: npt.NDArray[np.int64], tolerated: float = 1.5) -> Floats:
        """Return every suspect's conditional log evidence after every crash: shape (runs, crashes, suspects)."""
        return log_evidence(self.patterns[crashes], self.share[crashes], tolerated)

    def both(self) -> dict[tuple[str, str], int]:
        """Return how many devices each two suspects share."""
        pairs = itertools.combinations(range(self.count), 2)
        return {
            (f"r{one}", f"r{other}"): round(
                self.devices * float(self.parts[self.patterns[:, one] & self.patterns[:, other]].sum())
            )
            for one, other in pairs
        }

    def suspects(self, crashes: npt.NDArray[np.int64], alpha: float) -> list[Suspect]:
        """Return what the streaming objects say of all suspects after one run's crashes."""
        return [self._suspect(one, crashes, alpha) for one in range(self.count)]

    def _suspect(self, one: int, crashes: npt.NDArray[np.int64], alpha: float) -> Suspect:
        exposed, share = self.patterns[crashes, one], self.share[crashes, one]
        conditional, marginal = RateRatio(), RateRatio()
        own, bounds = RatioBounds(), RatioBounds()
        conditional.update(exposed, share)
        own.update(exposed, share, share)
        pooled = np.full(len(crashes), self.marginal_share[one])
        marginal.update(exposed, pooled)
        bounds.update(exposed, pooled, pooled)
        return Suspect(
            rollout=f"r{one}",
            alpha=alpha,
            log_conditional=conditional.log_evidence,
            log_marginal=marginal.maximum,
            ratio_high=own.high,
            marginal_low=bounds.low,
            exposed_crashes=int(exposed.sum()),
            telling=int(np.count_nonzero((share >= 1e-3) & (share <= 1 - 1e-3))),
            devices=round(self.devices * float(self.marginal_share[one])),
        )


def log_evidence(exposed: Flags, share: Floats, tolerated: float = 1.5) -> Floats:
    """Return `RateRatio`'s log evidence after every crash for many series at once; the crashes are the second axis."""
    ratios = ratio_grid(tolerated)
    clipped = np.clip(share, 1e-9, 1 - 1e-9)[..., None]
    steps = np.where(exposed[..., None], np.log(ratios / tolerated), 0.0)
    steps -= np.log1p((ratios - 1) * clipped) - np.log1p((tolerated - 1) * clipped)
    return log_mean_exp(np.cumsum(steps, axis=1))


def two(part: float, overlap: float, ratios: tuple[float, float]) -> Suspects:
    """Return two suspects on `part` of the fleet each; `overlap` of either's devices are on both."""
    common, alone = part * overlap, part * (1 - overlap)
    presence: dict[tuple[bool, ...], float] = {(False, False): 1 - common - 2 * alone, (True, True): common}
    if alone > 0:
        presence |= {(True, False): alone, (False, True): alone}
    return Suspects(presence, ratios)


def rider(part: float, riding: float, ratios: tuple[float, float]) -> Suspects:
    """Return a driver on `part` of the fleet, and content that only devices with the driver have: `riding` of them."""
    both = part * riding
    return Suspects({(False, False): 1 - part, (True, False): part - both, (True, True): both}, ratios)


def independent(parts: Sequence[float], ratios: Sequence[float]) -> Suspects:
    """Return suspects that are on devices independently of each other."""
    presence = {
        pattern: math.prod(part if on else 1 - part for part, on in zip(parts, pattern, strict=True))
        for pattern in itertools.product((False, True), repeat=len(parts))
    }
    return Suspects(presence, ratios)
