"""Random numbers that belong to a device and an occasion instead of to a place in a sequence.

Every draw of the simulated fleet is a hash of (seed, purpose, device, occasion). A stopped rollout therefore changes
nothing else: the counterfactual run with the same seed sees the same background crashes, the same victims and the same
delays, and differences between two runs are the kill switch's doing alone. It also makes runs independent of the step.

The hash is SplitMix64's finaliser (Steele, Lea and Flood, 2014), applied once per part of the key.
"""

import enum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


class Purpose(enum.IntEnum):
    """What a draw is for; equal keys with unlike purposes are independent."""

    TENANT = 1
    FORM = 2
    OS_BUILD = 3
    MODEL = 4
    SITE = 5
    REGION = 6
    RING = 7
    UPTIME = 8
    PHASE = 9
    SWITCHED_ON = 10
    UNHEARD = 11
    SKEW = 12
    SKEW_WRONG = 13
    PRODUCT = 14
    VERSION = 15
    PUSH_ORDER = 16
    CRASHES = 17
    LOOPS = 18
    REPORTS = 19
    REPORTS_AFTER = 20
    RECOVERS = 21
    RECOVERS_BOOTS = 22
    BOOT_SECONDS = 23
    BACKGROUND_COUNT = 24
    BACKGROUND_TIME = 25
    BACKGROUND_DEVICE = 26
    BACKGROUND_WHAT = 27
    BACKGROUND_BOOT = 28
    REBOOT_SECONDS = 29
    FATE = 30
    DELAY = 31
    NEXT_BOOT = 32


_S27, _S30, _S31, _S11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(11)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value ^= value >> _S30
    value *= _MIX_1
    value ^= value >> _S27
    value *= _MIX_2
    value ^= value >> _S31
    return value


class Draws:
    """Uniform draws keyed by purpose, device and occasion under one seed."""

    def __init__(self, seed: int) -> None:
        salts = np.array([seed], dtype=np.uint64) * _GAMMA + np.array(list(Purpose), dtype=np.uint64)
        self._salts = dict(zip(Purpose, _mix(salts), strict=True))

    def uniform(self, purpose: Purpose, keys: Ints, occasions: Ints | int = 0) -> Floats:
        """Draw uniform numbers in [0, 1), one per key.

        Args:
            purpose: what the draw is for.
            keys: shape (n,), usually device indexes.
            occasions: shape (n,) or one number: which time, boot, product or update it is for the key.
        """
        if len(keys) == 0:
            return np.zeros(0, dtype=np.float64)
        state = keys.astype(np.uint64)
        state += self._salts[purpose]
        state = _mix(state * _GAMMA)
        state += np.atleast_1d(np.asarray(occasions)).astype(np.uint64) * _GAMMA + _GAMMA
        return (_mix(state) >> _S11).astype(np.float64) * 2.0**-53

    def between(self, purpose: Purpose, keys: Ints, span: tuple[float, float], occasions: Ints | int = 0) -> Floats:
        """Draw uniform numbers between the two ends of `span`, one per key."""
        low, high = span
        return low + (high - low) * self.uniform(purpose, keys, occasions)

    def choice(self, purpose: Purpose, keys: Ints, weights: list[float], occasions: Ints | int = 0) -> Ints:
        """Draw indexes into `weights` with probabilities proportional to them, one per key."""
        edges = np.cumsum(np.asarray(weights, dtype=np.float64))
        picked = np.searchsorted(edges / edges[-1], self.uniform(purpose, keys, occasions), side="right")
        return np.minimum(picked, len(weights) - 1).astype(np.int64)

    def exponential(self, purpose: Purpose, keys: Ints, mean: float, occasions: Ints | int = 0) -> Floats:
        """Draw exponential numbers with the given mean, one per key."""
        return -mean * np.log1p(-self.uniform(purpose, keys, occasions))
