"""The mean of e-values: how the methods' evidence becomes one number.

A weighted mean of e-values with fixed weights that sum to 1 is an e-value, whatever the methods have in common: no
independence is needed. What it costs is known beforehand: a method of weight v alone needs log(1 / v) more evidence.
"""

import math
from collections.abc import Sequence

import numpy as np

from detectors.sequential import Floats


def combine(log_values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the natural log of the weighted mean of e-values.

    A method that has nothing to say gives log 1 = 0 and keeps its weight: weights never move to the methods that
    happen to speak, since choosing them after the fact would make the mean no e-value.

    Args:
        log_values: natural logs of the e-values.
        weights: one each, not negative, summing to 1.

    Raises:
        ValueError: the weights do not match, or do not sum to 1.

    Example:
        >>> round(combine([20.0, 0.0], [0.5, 0.5]), 3)
        19.307

    Source: Vovk and Wang (2021), "E-values: calibration, combination and applications".
    """
    if len(log_values) != len(weights):
        raise ValueError(f"{len(log_values)} e-values but {len(weights)} weights: give one each")
    if any(weight < 0 for weight in weights) or not math.isclose(sum(weights), 1.0, abs_tol=1e-9):
        raise ValueError(f"weights {list(weights)} must not be negative and must sum to 1")
    terms = [value + math.log(weight) for value, weight in zip(log_values, weights, strict=True) if weight > 0]
    top = max(terms)
    return top + math.log(math.fsum(math.exp(term - top) for term in terms))


def combine_rows(parts: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """Return `combine` of arrays of equal shape (or that broadcast), element by element.

    Example:
        >>> combine_rows([np.array([20.0, 0.0]), np.array([0.0, 0.0])], [0.5, 0.5]).round(3).tolist()
        [19.307, 0.0]
    """
    terms = [part + math.log(weight) for part, weight in zip(parts, weights, strict=True) if weight > 0]
    combined: Floats = np.logaddexp.reduce(np.stack(np.broadcast_arrays(*terms)), axis=0)
    return combined
