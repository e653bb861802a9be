"""How many crashes the evidence takes when any one tenant group is left out of it: simulated, for planning."""

import math
from typing import Final

import numpy as np

from detectors.sequential import Floats, log_mean_exp, ratio_grid

RUNS: Final = 400
ROW_MAX: Final = 5000
# Where many crashes are needed, the evidence is looked at so often until the raw statistic would suffice.
LOOKS: Final = 150
_SEED: Final = 20240719


def crossings_of_tenants(
    odds: float,
    told: float,
    tolerated: float,
    log_needed: float,
    exposed_least: int,
    tenants: int,
    floor: float,
    block: int,
    events_max: int,
    runs: int = RUNS,
) -> Floats:
    """Return the chance that the evidence first suffices at the k-th crash, with any one of the tenants left out.

    Evidence of group k is M_k(rho), and what counts is the least over j of mean over rho of the product over k != j of
    [floor + (1 - floor) M_k(rho)] (DESIGN.md, "Withstand lies"). Crashes fall on `tenants` equal groups at random.

    Args:
        odds: chance that a crash is an exposed one.
        told: exposed share as the evidence is told it.
        tolerated: the ratio that is still no harm.
        log_needed: natural log of the e-value that suffices.
        exposed_least: exposed crashes that are needed at least.
        tenants: number of groups, 2 or more.
        floor: least factor of a group.
        block: look at the evidence after so many crashes each, not after every one, where very many are needed; it is
            found later by at most one block.
        events_max: what lies beyond so many crashes is left out.
        runs: simulated rollouts.
    """
    rng = np.random.default_rng(_SEED)
    ratios = ratio_grid(tolerated)
    gain = np.log(ratios / tolerated)
    cost = np.log1p((ratios - 1.0) * told) - np.log1p((tolerated - 1.0) * told)
    log_m = np.zeros((runs, tenants, len(ratios)))
    exposed = np.zeros(runs, dtype=np.int64)
    best = np.zeros(runs)
    counts = np.zeros(events_max + 1)
    for k in range(block, events_max + 1, block):
        crashes = rng.multinomial(block, [1.0 / tenants] * tenants, size=len(best))
        x = rng.binomial(crashes, odds)
        log_m += x[:, :, None] * gain - crashes[:, :, None] * cost
        factor = np.logaddexp(math.log(floor), math.log1p(-floor) + log_m)
        exposed += x.sum(axis=1)
        # Evidence latches, so the highest counts once enough devices have crashed.
        best = np.maximum(best, log_mean_exp(factor.sum(axis=1)[:, None, :] - factor).min(axis=1))
        crossed = (best >= log_needed) & (exposed >= exposed_least)
        counts[k] = np.count_nonzero(crossed)
        if counts[k]:
            log_m, exposed, best = (one[~crossed] for one in (log_m, exposed, best))
        if not len(best):
            return counts[: k + 1] / runs
    return counts / runs


def row_of_tenants(
    told: float, tolerated: float, log_needed: float, exposed_least: int, tenants: int, floor: float
) -> int | None:
    """Return how many exposed crashes in a row suffice, of `tenants` groups in turn; None if `ROW_MAX` don't.

    With one tenant it is the raw statistic's number; the other arguments are those of `crossings_of_tenants`.
    """
    ratios = ratio_grid(tolerated)
    gain = np.log(ratios / tolerated) - np.log1p((ratios - 1.0) * told) + np.log1p((tolerated - 1.0) * told)
    log_m = np.zeros((tenants, len(ratios)))
    for k in range(1, ROW_MAX + 1):
        log_m[(k - 1) % tenants] += gain
        factor = np.logaddexp(math.log(floor), math.log1p(-floor) + log_m)
        left = log_m if tenants == 1 else factor.sum(axis=0) - factor
        if k >= exposed_least and float(log_mean_exp(left).min()) >= log_needed:
            return k
    return None
