"""What a rival that is not in the strata can do at most, and how evidence stays valid beside it.

Cells are split by a few rivals only. For any other, how unevenly it is spread over the two arms bounds what it can
feign; the exposed share is raised by that much. Plain numbers only.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detectors.sequential import Floats


def confounding_factor(exposed: Sequence[float], control: Sequence[float]) -> float:
    """Return by how much unsplit rivals can raise a suspect's apparent rate ratio, whatever they do.

    Model. Let P1(z) and P0(z) be the shares of the exposed and of the control devices with presence pattern z of the
    rivals, and f(z) >= 0 the factor by which z changes the crash rate. The arms' rates are then in proportion
    sum P1 f / sum P0 f, which is at most max over z of P1(z) / P0(z), for every f: harm of any size, and cures.

    Args:
        exposed: devices at risk on the suspect, one number per pattern: for one rival, without it and with it.
        control: those not on the suspect, in the same order.

    Returns:
        At least 1; infinite where a pattern is found among the exposed only.

    Raises:
        ValueError: the lengths differ, an arm is empty, or a count is none.

    Example:
        Of the exposed devices 30 % have the rival, of the others 10 %: it can feign a ratio of 3 and no more.

        >>> round(confounding_factor([700, 300], [9000, 1000]), 3)
        3.0

    Source: Cornfield et al. (1959), "Smoking and lung cancer: recent evidence and a discussion of some questions",
    appendix A.
    """
    if len(exposed) != len(control) or not exposed:
        raise ValueError(f"{len(exposed)} patterns of exposed devices, {len(control)} of others: give both for each")
    if not all(0 <= one < math.inf for one in (*exposed, *control)):
        raise ValueError("a count of devices is negative or no number")
    total, total_control = math.fsum(exposed), math.fsum(control)
    if not total or not total_control:
        raise ValueError("an arm has no devices: there is nothing to compare, and nothing to score")
    ratios = [
        (one / total) / (other / total_control) if other else math.inf
        for one, other in zip(exposed, control, strict=True)
        if one
    ]
    return max(1.0, *ratios)


def confounded_share(share: npt.ArrayLike, factor: npt.ArrayLike) -> Floats:
    """Return the exposed share with its odds raised by the factor: an upper bound in the sense of `RateRatio`.

    If the suspect is no worse than tolerated and unsplit rivals feign at most `factor`, crashes are exposed with at
    most the tolerated ratio's odds of this share, so evidence fed with it is valid. It costs crashes as any overstated
    share does, and all of the evidence where the factor is infinite.

    Args:
        share: exposed share at risk, 0 to 1, any shape.
        factor: `confounding_factor` of the crash's cell at that moment, at least 1; same shape or one for all.

    Raises:
        ValueError: a share lies outside 0 to 1, or a factor below 1.

    Example:
        >>> confounded_share([0.1, 0.5, 0.0], 3.0).round(3).tolist()
        [0.25, 0.75, 0.0]
    """
    w, raised = np.asarray(share, dtype=np.float64), np.asarray(factor, dtype=np.float64)
    if not bool(np.all((w >= 0.0) & (w <= 1.0))):
        raise ValueError("a share lies outside 0 to 1 or is no number: pass exposed / (exposed + control) at risk")
    if not bool(np.all(raised >= 1.0)):
        raise ValueError("a factor lies below 1 or is no number: pass what confounding_factor gives")
    # Written by the inverse so that an infinite factor gives 1, and a share of 0 stays 0 under a finite one.
    kept = w + (1.0 - w) / raised
    found: Floats = np.divide(w, kept, out=np.ones_like(kept), where=kept > 0.0)
    return found
