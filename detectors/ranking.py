"""Ranking for people: how much more devices crash with each update, all others taken into account.

Attribution (`attribution`) decides by evidence; this gives the person who looks at a hold a number per suspect. It is a
fit to counts, valid when looked at once: never a reason to kill. Plain numbers only.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.sequential import Floats

UPDATES_MAX: Final = 32
CELLS_MAX: Final = 256
# What is believed before any crash: a rate ratio within a factor 10 either way in two of three cases.
_PRIOR_SD: Final = math.log(10.0)
# A cell's own rate is left nearly free: twenty times as wide.
_CELL_SD: Final = 20.0 * _PRIOR_SD
_Z95: Final = 1.959964
# Two updates with this part of the expected crashes in common can't be told apart ...
CONFUSED_SHARE: Final = 0.5
# ... unless the ratio between their effects is known to this factor.
CONFUSED_FACTOR: Final = 10.0
_STEPS_MAX: Final = 200
_HALVES: Final = tuple(0.5**power for power in range(30))
_TOLERANCE: Final = 1e-9
_LINEAR_MAX: Final = 200.0
_JITTER: Final = 1e-12


class Stratum(NamedTuple):
    """Crashes and device-time of devices of one cell with the same updates.

    Attributes:
        cell: the circumstances that have a crash rate of their own.
        updates: the rollouts these devices are on.
        crashes: first crashes.
        device_seconds: device-time at risk.
    """

    cell: str
    updates: frozenset[str]
    crashes: int
    device_seconds: float


class Ranked(msgspec.Struct, frozen=True):
    """One update's place.

    Attributes:
        rollout: its id.
        ratio: estimated rate ratio, all other updates taken into account.
        low: lower end of its 95 % interval.
        high: upper end of it.
        weight: share of the crashes that it explains, 0 to 1.
        confused_with: updates that the counts can't tell it from.
        text: a sentence with the numbers.
    """

    rollout: str
    ratio: float
    low: float
    high: float
    weight: float
    confused_with: tuple[str, ...]
    text: str


def rank(strata: Sequence[Stratum], updates: Sequence[str]) -> list[Ranked]:
    """Rank updates by how much more devices crash with them, worst first.

    Model. Crashes in stratum s are Poisson with mean t_s * exp(a_cell + sum of b_u over the stratum's updates u), t_s
    its device-time: a log-linear regression, fitted by Newton's method. A weak normal prior on b (a
    factor 10) stands for "most updates do little"; it keeps strata without crashes finite and shares an effect evenly
    between updates that are always together. Intervals are from the Fisher information with the prior. An update's
    weight is the part of all crashes that the fit takes away when its effect is set to none, 0 if it has one below 1.

    Assumptions. Effects multiply; where two updates crash only together, both rise. Devices of a cell crash alike but
    for their updates. Counts of first crashes; where they come in clumps (a site's power cut), intervals are too
    narrow.

    A false alarm costs a person's time: the ranking neither holds nor kills.

    Args:
        strata: at least one with device-time.
        updates: the suspects, at most 32; others in the strata are ignored.

    Raises:
        ValueError: too many updates or cells, one named twice, or a stratum's numbers are none.

    Example:
        The second update is on half of the devices that have the guilty first.

        >>> ranked = rank(
        ...     [
        ...         Stratum("all", frozenset(), 9, 9e6),
        ...         Stratum("all", frozenset({"a"}), 50, 1e6),
        ...         Stratum("all", frozenset({"a", "b"}), 48, 1e6),
        ...         Stratum("all", frozenset({"b"}), 1, 1e6),
        ...     ],
        ...     ["b", "a"],
        ... )
        >>> [(one.rollout, round(one.ratio), round(one.low, 1), round(one.high, 1)) for one in ranked]
        [('a', 46, 24.1, 87.2), ('b', 1, 0.7, 1.4)]
        >>> ranked[0].weight > 0.8
        True

    Source: Breslow and Day (1987), IARC 82, chapter 4, for Poisson regression of grouped rates.
    """
    _check(strata, updates)
    used = [one for one in strata if one.device_seconds > 0]
    crashes = np.array([one.crashes for one in used], dtype=np.float64)
    presence = np.array([[update in one.updates for update in updates] for one in used], dtype=np.float64)
    presence = presence.reshape(len(used), len(updates))
    effects, mean, covariance = _fit(used, crashes, presence)
    confused = _confused(updates, presence, mean, covariance)
    found = []
    for number, update in enumerate(updates):
        deviation = math.sqrt(max(float(covariance[number, number]), 0.0))
        effect = float(effects[number])
        excess = mean * presence[:, number] * -math.expm1(-max(effect, 0.0))
        weight = float(excess.sum() / mean.sum()) if crashes.sum() else 0.0
        ends = (math.exp(effect - _Z95 * deviation), math.exp(effect + _Z95 * deviation))
        others = confused[update]
        text = _sentence(update, math.exp(effect), ends, weight, others)
        found.append(Ranked(update, math.exp(effect), ends[0], ends[1], weight, others, text))
    return sorted(found, key=lambda one: (-one.low, -one.ratio, one.rollout))


def _check(strata: Sequence[Stratum], updates: Sequence[str]) -> None:
    if len(updates) > UPDATES_MAX or len(set(updates)) != len(updates):
        raise ValueError(f"{len(updates)} updates: pass each once and at most {UPDATES_MAX}")
    if len({one.cell for one in strata}) > CELLS_MAX:
        raise ValueError(f"more than {CELLS_MAX} cells: collapse sparse ones by exposure first")
    for one in strata:
        if not (one.crashes >= 0 and 0.0 <= one.device_seconds < math.inf):
            raise ValueError(f"stratum {one.cell} {sorted(one.updates)}: counts and device-time must not be negative")
        if one.crashes and one.device_seconds == 0.0:
            raise ValueError(f"stratum {one.cell} {sorted(one.updates)} has crashes but no device-time: pass both")
    if not any(one.device_seconds for one in strata):
        raise ValueError("no stratum has device-time: there is nothing to compare")


def _fit(strata: Sequence[Stratum], crashes: Floats, presence: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the updates' log ratios, the strata's fitted crashes, and the log ratios' covariance."""
    cells = sorted({one.cell for one in strata})
    dummies = np.array([[one.cell == cell for cell in cells[1:]] for one in strata], dtype=np.float64)
    dummies = dummies.reshape(len(strata), len(cells) - 1) * (_CELL_SD / _PRIOR_SD)
    design = np.concatenate([presence, dummies], axis=1)
    count = presence.shape[1]
    total = float(crashes.sum())
    if not total or not design.shape[1]:
        # Without a crash the best fit is that nothing ever crashes: what is left of the effects is the prior.
        seconds = np.array([one.device_seconds for one in strata])
        return np.zeros(count), seconds * total / seconds.sum(), np.eye(count) * _PRIOR_SD**2
    # In units in which the mean rate is one, whatever the fleet: the solver's tolerance is absolute.
    time = np.array([one.device_seconds for one in strata])
    time *= total / time.sum()
    coefficients, intercept = _regress(design, crashes / time, time, 1.0 / (_PRIOR_SD**2 * total))
    mean = time * np.exp(intercept + design @ coefficients)
    full = np.concatenate([design, np.ones((len(strata), 1))], axis=1)
    information = full.T @ (full * mean[:, None])
    information[np.diag_indices(design.shape[1])] += 1.0 / _PRIOR_SD**2
    return coefficients[:count], mean, np.linalg.inv(information)[:count, :count]


def _regress(design: Floats, rates: Floats, time: Floats, penalty: float) -> tuple[Floats, float]:
    """Return the coefficients and the intercept of a Poisson regression with a ridge penalty, by Newton's method.

    Not scikit-learn's: its import takes a second, and the detectors ask in the middle of an incident.
    """
    full = np.concatenate([design, np.ones((len(design), 1))], axis=1)
    ridge = np.append(np.full(design.shape[1], penalty * time.sum()), 0.0)
    found: Floats = np.zeros(full.shape[1])
    found[-1] = np.log((rates * time).sum() / time.sum())

    def loss(point: Floats) -> float:
        linear = np.clip(full @ point, -_LINEAR_MAX, _LINEAR_MAX)
        return float((time * (np.exp(linear) - rates * linear)).sum() + 0.5 * (ridge * point**2).sum())

    for _ in range(_STEPS_MAX):
        mean = time * np.exp(np.clip(full @ found, -_LINEAR_MAX, _LINEAR_MAX))
        gradient = full.T @ (mean - rates * time) + ridge * found
        hessian = full.T @ (full * mean[:, None]) + np.diag(ridge)
        move = np.linalg.solve(hessian + _JITTER * np.eye(len(found)), gradient)
        # Convex, but far from the optimum a whole step may overshoot.
        size = next((half for half in _HALVES if loss(found - half * move) <= loss(found)), 0.0)
        found = found - size * move
        if not size or float(np.abs(size * move).max()) < _TOLERANCE:
            break
    return found[:-1], float(found[-1])


def _confused(updates: Sequence[str], presence: Floats, mean: Floats, covariance: Floats) -> dict[str, tuple[str, ...]]:
    """Return for each update those that the counts can't tell it from.

    Two are confused where they are on the same devices, as far as crashes are expected, and the difference of their
    log ratios is hardly better known than before any crash. Being wide alone is not enough: an update on few devices is
    not known well, but is not confused with one on other devices.
    """
    found: dict[str, list[str]] = {update: [] for update in updates}
    expected = presence.T @ (presence * mean[:, None])
    for one, other in itertools.combinations(range(len(updates)), 2):
        common = expected[one, other]
        if not common or common < CONFUSED_SHARE * (expected[one, one] + expected[other, other] - common):
            continue
        variance = covariance[one, one] + covariance[other, other] - 2.0 * covariance[one, other]
        if _Z95 * math.sqrt(max(float(variance), 0.0)) > math.log(CONFUSED_FACTOR):
            found[updates[one]].append(updates[other])
            found[updates[other]].append(updates[one])
    return {update: tuple(sorted(others)) for update, others in found.items()}


def _sentence(update: str, ratio: float, ends: tuple[float, float], weight: float, others: tuple[str, ...]) -> str:
    text = f"{update}: {ratio:.2g} times the crashes ({ends[0]:.2g} to {ends[1]:.2g}), {weight:.0%} of them explained"
    return text + (f"; can't be told apart from {', '.join(others)} by these counts" if others else "")
