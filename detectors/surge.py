"""How much better a surge explains an hour of crashes than the usual spread does; used by `outliers.py`.

Ranks among a few thousand past hours can't tell a storm from the worst hour in them, and after a year of tests no rank
suffices for an alert. A likelihood ratio can: it grows with the storm. Plain numbers only.
"""

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, logsumexp

from detectors.sequential import Floats

# Shapes of the negative binomial that are tried, the widest spread first.
SHAPES: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
# A surge multiplies the usual mean by one of these.
FACTORS: Final = tuple(2.0**power for power in range(1, 11))
# Fewer measuring hours than this say nothing of a spread of their own.
ROWS_LEAST: Final = 50
# One past incident among the measuring hours counts as so much at most.
VALUE_MAX: Final = 1e6
_MEAN_LEAST: Final = 1e-6

Kinds = npt.NDArray[np.int64]


class Spread(msgspec.Struct, frozen=True, array_like=True):
    """How hours spread about their usual mean: the shape, and what the ratio's mean was above 1 in measuring hours."""

    shape: float
    inflation: float


# Before anything was measured: as wide as any.
UNKNOWN: Final = Spread(SHAPES[0], 1.0)


def log_truncated(count: Floats, mean: Floats, shape: float) -> Floats:
    """Return the log probabilities of counts from 1 on: negative binomial of that mean and shape, given not none.

    Raises:
        ValueError: a count is below 1, or a mean or the shape not above 0.
    """
    if bool(np.any(count < 1)) or bool(np.any(mean <= 0)) or shape <= 0:
        raise ValueError("counts must be 1 or more, means and shape above 0")
    none = shape * (np.log(shape) - np.log(shape + mean))
    whole = gammaln(count + shape) - gammaln(shape) - gammaln(count + 1) + none
    found: Floats = whole + count * (np.log(mean) - np.log(shape + mean)) - np.log(-np.expm1(none))
    return found


def log_surge(count: npt.ArrayLike, usual: npt.ArrayLike, spread: Spread) -> Floats:
    """Return the log e-values of "no surge" for hours in which a pattern crashed.

    Model. In an hour that counts at all, the devices that crash are negative binomial about the usual mean, given that
    there is one: hours without a crash are no tests. A surge multiplies the mean by 2, 4, ... or 1,024, the ratio of
    likelihoods is averaged over these, and divided by the mean it had in past hours where that was above 1.

    Assumptions. Tails as the negative binomial has them. Past incidents among the measuring hours make it less sure.

    What it can't see: a rise below a factor of two.

    Args:
        count: devices that crashed, at least 1, shape (n,).
        usual: what the past leads to expect, above 0, shape (n,).
        spread: by `measure`.

    Example:
        One crash where one is expected in fifty hours says nothing; twelve devices do.

        >>> log_surge([1, 12], [0.02, 0.02], Spread(0.2, 1.0)).round(1).tolist()
        [-0.7, 23.6]
    """
    x, mean = np.asarray(count, dtype=np.float64), np.maximum(np.asarray(usual, dtype=np.float64), _MEAN_LEAST)
    surged = np.stack([log_truncated(x, mean * factor, spread.shape) for factor in FACTORS])
    price = np.log(len(FACTORS) * max(spread.inflation, 1.0))
    found: Floats = logsumexp(surged, axis=0) - price - log_truncated(x, mean, spread.shape)
    return found


def measure(count: Floats, usual: Floats) -> Spread:
    """Return the spread of past hours: one shape wider than the likeliest, and the ratio's mean with it."""
    if len(count) < ROWS_LEAST:
        return UNKNOWN
    mean = np.maximum(usual, _MEAN_LEAST)
    likelihoods = [float(log_truncated(count, mean, shape).sum()) for shape in SHAPES]
    shape = SHAPES[max(int(np.argmax(likelihoods)) - 1, 0)]
    values = np.minimum(np.exp(np.minimum(log_surge(count, mean, Spread(shape, 1.0)), 700.0)), VALUE_MAX)
    return Spread(shape, max(1.0, float(values.mean())))
