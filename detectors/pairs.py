"""Two factors at once: do both together crash more than each alone explains? The statistics of one pair.

Used by `interactions.py`, which makes the tables. Plain numbers only. Everything here is conditional on how many
crashed in each row and column of a table, so that no rate need be known or estimated beforehand.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from scipy.special import gammaln

from detectors.sequential import Floats, log_mean_exp, ratio_grid

TOLERATED_RATIO: Final = 1.25
FALSE_SHARE: Final = 0.05
# Crashes one table may hold: its distribution is summed term by term.
CRASHES_MAX: Final = 2_000_000
_LOG_RATIOS: Final[Floats] = np.linspace(math.log(1 / 1024), math.log(4096), 45)
_ZOOMS: Final = 6
_ZOOM_POINTS: Final = 9
# A profile likelihood interval of 95 %: half the chi-square quantile with one degree of freedom.
_DROP95: Final = 1.920729
_TERMS: Final = 1 << 16


class Table(NamedTuple):
    """One stratum's two by two: crashes and device-days of both, version alone, level alone, neither."""

    crashes: tuple[int, int, int, int]
    device_days: tuple[float, float, float, float]


# An interval asks for the same few tables some twenty times over.
@functools.lru_cache(maxsize=32)
def _log_terms(table: Table) -> tuple[Floats, Floats, float]:
    """Return the pair's possible crash counts, the log weight of each but for the ratio, and the log odds.

    Raises:
        ValueError: the table holds more crashes than are summed.
    """
    both, version, level, _ = table.crashes
    if version + both + level > CRASHES_MAX:
        raise ValueError(f"{both + version + level} crashes in one table: ask for a shorter time (--since) or a sample")
    rows, columns, total = both + version, both + level, sum(table.crashes)
    k: Floats = np.arange(max(0, rows + columns - total), min(rows, columns) + 1, dtype=np.float64)
    weights = -(
        gammaln(k + 1) + gammaln(rows - k + 1) + gammaln(columns - k + 1) + gammaln(total - rows - columns + k + 1)
    )
    days = np.log(np.array(table.device_days))
    return k, weights, float(days[0] + days[3] - days[1] - days[2])


def log_likelihood(table: Table, ratios: Floats) -> Floats:
    """Return the log likelihood of interaction ratios, shape (n,), given how many crashed in each row and column.

    Crashes are Poisson with rate = common * version * level * ratio (in the pair). Given the margins, nothing is left
    of the first three: the pair's count is Fisher's noncentral hypergeometric with odds

        ratio * days_both * days_neither / (days_version_alone * days_level_alone)

    Source: McCullagh and Nelder (1989), "Generalized Linear Models", 7.3; Cox and Snell (1989), 2.1, for conditioning.
    """
    k, weights, odds = _log_terms(table)
    tilts = np.log(ratios) + odds
    lost = np.empty(len(ratios))
    step = max(1, _TERMS // len(k))
    for start in range(0, len(ratios), step):
        logs = weights + tilts[start : start + step, None] * k
        lost[start : start + step] = log_mean_exp(logs) + math.log(len(k))
    found: Floats = weights[int(table.crashes[0] - k[0])] + tilts * table.crashes[0] - lost
    return found


def expected_crashes(table: Table) -> float:
    """Return the pair's expected crashes without interaction: the rates of its other three parts, multiplied.

    days_both * version_alone * level_alone / neither, with half a crash added to each count, so that a part in which
    nobody crashed yet is no promise that nobody can.

    Source: Rothman, Greenland and Lash (2008), "Modern Epidemiology", chapter 5, for joint effects on the ratio scale.
    """
    rates = [(crashes + 0.5) / days for crashes, days in zip(table.crashes[1:], table.device_days[1:], strict=True)]
    return table.device_days[0] * rates[0] * rates[1] / rates[2]


def _log_likelihood_alone(crashes: tuple[int, int], days: tuple[float, float], ratios: Floats) -> Floats:
    """Return the log likelihood of rate ratios: the first arm's crashes given both arms' sum are binomial."""
    share = days[0] / (days[0] + days[1])
    found: Floats = crashes[0] * np.log(ratios) - sum(crashes) * np.log1p((ratios - 1.0) * share)
    return found


class Evidence(NamedTuple):
    """Natural logs of two e-values.

    Attributes:
        worse: against "the pair is no worse than the version alone, or no worse than the level alone".
        beyond: against that, or "the two multiply": some of the harm is the pair's own.
    """

    worse: float
    beyond: float


def log_evidence(tables: Sequence[Table], tolerated_ratio: float = TOLERATED_RATIO) -> Evidence:
    """Return the logs of e-values that the pair is worse than its parts, and worse than both multiplied.

    Three e-values, each the mean over 32 ratios above the tolerated one of a likelihood ratio, multiplied over strata:
    the pair against the version alone; against the level alone; the interaction given margins. Of those asked for the
    least counts: whichever of the hypotheses is true, its own e-value has mean at most 1, so the least one has.

    Args:
        tables: one a stratum, each with device-time in all four parts.
        tolerated_ratio: how much worse is still no harm.

    Source: Vovk and Wang (2021), "E-values: calibration, combination and applications"; Berger (1982) for the least.
    """
    points = np.append(ratio_grid(tolerated_ratio), tolerated_ratio)
    logs = np.zeros((3, len(points)))
    for table in tables:
        crashes, days = table.crashes, table.device_days
        for row, other in enumerate((1, 2)):
            logs[row] += _log_likelihood_alone((crashes[0], crashes[other]), (days[0], days[other]), points)
        logs[2] += log_likelihood(table, points)
    found = log_mean_exp(logs[:, :-1] - logs[:, -1:])
    return Evidence(float(found[:2].min()), float(found.min()))


def interval(tables: Sequence[Table]) -> tuple[float | None, float, float | None]:
    """Return the interaction ratio's conditional maximum likelihood estimate and 95 % profile likelihood interval.

    None for an estimate or upper end beyond all bounds, 0 for an estimate or lower end below all.
    """

    def curve(logs: Floats) -> Floats:
        summed: Floats = np.zeros(len(logs))
        for table in tables:
            summed += log_likelihood(table, np.exp(logs))
        return summed

    logs = _LOG_RATIOS
    coarse = curve(logs)
    best = int(coarse.argmax())
    at_end = best in (0, len(logs) - 1)
    top = float(logs[best]) if at_end else _top(curve, float(logs[best - 1]), float(logs[best + 1]))
    line = float(curve(np.array([top]))[0]) - _DROP95
    low = float(np.exp(_crossing(curve, line, float(logs[0]), top))) if coarse[0] < line else 0.0
    high = float(np.exp(_crossing(curve, line, float(logs[-1]), top))) if coarse[-1] < line else None
    if at_end:
        return (0.0 if best == 0 else None), low, high
    return float(np.exp(top)), low, high


def _top(curve: Callable[[Floats], Floats], low: float, high: float) -> float:
    """Return where a concave curve is highest between two points, by looking ever closer."""
    for _ in range(_ZOOMS):
        points = np.linspace(low, high, _ZOOM_POINTS)
        best = int(curve(points).argmax())
        low, high = float(points[max(0, best - 1)]), float(points[min(len(points) - 1, best + 1)])
    return (low + high) / 2.0


def _crossing(curve: Callable[[Floats], Floats], line: float, below: float, above: float) -> float:
    """Return where a monotone curve crosses a line between a point below it and one above."""
    for _ in range(_ZOOMS):
        points = np.linspace(below, above, _ZOOM_POINTS)
        first = max(1, int((curve(points) >= line).argmax()))
        below, above = float(points[first - 1]), float(points[first])
    return (below + above) / 2.0


def stands(log_evidences: Sequence[float], false_share: float = FALSE_SHARE) -> list[bool]:
    """Tell which of many e-values stand, so that on average at most `false_share` of those that do are false.

    The e-BH rule: of K, the k highest stand for the largest k whose lowest is at least K / (k * false_share). It holds
    whatever the dependence between pairs, which share devices.

    Source: Wang and Ramdas (2022), "False discovery rate control with e-values".
    """
    count = len(log_evidences)
    order = sorted(range(count), key=lambda i: -log_evidences[i])
    kept = 0
    for k, index in enumerate(order, start=1):
        if log_evidences[index] >= math.log(count / (k * false_share)):
            kept = k
    chosen = set(order[:kept])
    return [index in chosen for index in range(count)]
