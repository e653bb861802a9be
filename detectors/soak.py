"""Planning: how large a ring, and how long a soak, until a given harm is noticed with a given certainty.

Two steps. How many crashes it takes is a property of the evidence: exact for the raw rate ratio, simulated where tenant
groups with floors and leaving one out come in. How long so many crashes take is a property of the ring. Plain numbers
only; nothing here runs while a rollout is watched.
"""

import functools
import math
from typing import Final

import msgspec
import numpy as np
from scipy.signal import fftconvolve
from scipy.stats import binom, poisson

from detectors.sequential import SHARE_MIN, Floats, ratio_grid
from detectors.soak_question import CERTAINTY_MAX, Harm, Ring, SoakError, TooManyCrashesError, Watch, check_certainty
from detectors.soak_tenants import LOOKS, crossings_of_tenants, row_of_tenants

EVENTS_MAX: Final = 20_000
HOURS_MAX: Final = 90 * 24.0


def crossings(ratio: float, share: float, watch: Watch, events_max: int = EVENTS_MAX) -> Floats:
    """Return the chance that the evidence first suffices at the k-th crash, k = 0, 1, ...; they sum to at most 1.

    What lies beyond `events_max` crashes is left out.

    For the raw statistic at a constant share the evidence after k crashes depends only on how many of them were
    exposed, so the chances follow exactly, crash by crash. With several tenants they are simulated.

    Raises:
        SoakError: the harm is tolerated, or takes too many crashes.
    """
    if ratio <= watch.tolerated_ratio:
        raise SoakError(
            f"a rate ratio of {ratio:g} cannot be noticed at tolerated_ratio {watch.tolerated_ratio:g}: lower "
            f"tolerated_ratio, or ask about a greater harm"
        )
    odds = ratio * share / (ratio * share + 1.0 - share)
    told = min(max(share, watch.share_least, SHARE_MIN), 1.0 - SHARE_MIN)
    found = _crossings(odds, told, watch.tolerated_ratio, round(watch.log_needed, 9), watch.devices_least, events_max)
    median = crashes_needed(found, 0.5)
    if median is None and events_max >= EVENTS_MAX:
        raise TooManyCrashesError(
            f"a rate ratio of {ratio:g} at an exposed share of {share:.2g} takes over {EVENTS_MAX} crashes: lower "
            f"tolerated_ratio, raise the share, or ask about a greater harm"
        )
    if watch.tenants == 1:
        return found
    block = max(1, (median or events_max) // LOOKS)
    return _crossings_of_tenants(
        odds,
        told,
        watch.tolerated_ratio,
        round(watch.log_needed, 9),
        watch.devices_least,
        watch.tenants,
        watch.tenant_floor,
        block,
        # Leaving one of two out takes twice the crashes, and the floors some more.
        4 * events_max,
    )


# Searches ask for the same crossings at every step where the share is fixed.
_crossings_of_tenants = functools.lru_cache(maxsize=64)(crossings_of_tenants)


@functools.lru_cache(maxsize=256)
def _crossings(
    odds: float, told: float, tolerated: float, log_needed: float, exposed_least: int, events_max: int
) -> Floats:
    ratios = ratio_grid(tolerated)
    gain = np.log(ratios / tolerated)
    cost = np.log1p((ratios - 1.0) * told) - np.log1p((tolerated - 1.0) * told)
    # alive[x]: the chance of x exposed crashes so far without the evidence having sufficed.
    alive: Floats = np.array([1.0])
    chances = [0.0]
    enough, left = exposed_least, 1.0
    for k in range(1, events_max + 1):
        grown = np.zeros(len(alive) + 1)
        grown[:-1] = alive * (1.0 - odds)
        grown[1:] += alive * odds
        # More crashes at the same exposed count are less evidence, so the count that is enough never falls.
        while enough <= k and _log_mean(enough * gain - k * cost) < log_needed:
            enough += 1
        crossed = float(grown[enough:].sum())
        alive = grown[:enough]
        chances.append(crossed)
        left -= crossed
        if left <= 1.0 - CERTAINTY_MAX:
            break
    return np.array(chances)


def _log_mean(logs: Floats) -> float:
    top = float(logs.max())
    return top + math.log(float(np.exp(logs - top).mean()))


def crashes_in_a_row(share: float, watch: Watch) -> int | None:
    """Return how many exposed crashes suffice if no control crashes, of tenants in turn; None if none ever do.

    So many exposed devices a ring must have for the harm to be noticed at all.
    """
    told = min(max(share, watch.share_least, SHARE_MIN), 1.0 - SHARE_MIN)
    return row_of_tenants(
        told, watch.tolerated_ratio, watch.log_needed, watch.devices_least, watch.tenants, watch.tenant_floor
    )


def crashes_needed(chances: Floats, certainty: float) -> int | None:
    """Return the number of crashes by which the evidence suffices with this certainty; None if it isn't known to."""
    reached = np.flatnonzero(np.cumsum(chances) >= certainty)
    return int(reached[0]) if len(reached) else None


def certainty(harm: Harm, watch: Watch, ring: Ring, devices: int, hours: float) -> float:
    """Return the chance that the harm is noticed within so many hours of the whole ring's exposure.

    The number of crashes by then is a binomial of the exposed (one crash a device) plus a Poisson of the controls; that
    it is independent of how many are needed is an approximation, exact while few of the exposed have crashed. Where
    most of a small ring crashes the answer is too careful: the told share is the whole ring's, not that of who is left.

    Raises:
        SoakError: the harm is tolerated, or the ring leaves no control.
    """
    _check_devices(ring, devices)
    share = ring.share_of(devices)
    return _certainty(
        crossings(harm.ratio, share, watch, _events_max(harm, devices, share, hours)), harm, devices, share, hours
    )


def _events_max(harm: Harm, devices: int, share: float, hours: float) -> int:
    """Return a number of crashes that hardly ever come so soon, a power of two so that searches meet it again."""
    mean = devices * (harm.chance(hours) + (1.0 - share) / share * harm.crashes_per_device_day * hours / 24.0)
    return min(EVENTS_MAX, 1 << math.ceil(math.log2(mean + 6.0 * math.sqrt(mean) + 20.0)))


def _certainty(chances: Floats, harm: Harm, devices: int, share: float, hours: float) -> float:
    # After the harm has ended the controls go on crashing, which is evidence for nothing that is asked about.
    hours = hours if harm.window_hours is None else min(hours, harm.window_hours)
    most = len(chances)
    k = np.arange(most)
    exposed = binom.pmf(k, devices, harm.chance(hours))
    quiet = -math.expm1(-harm.crashes_per_device_day * hours / 24.0)
    control = poisson.pmf(k, devices * (1.0 - share) / share * quiet)
    fewer = np.concatenate([[0.0], np.cumsum(fftconvolve(exposed, control)[: most - 1])])
    return float(np.clip(chances @ np.clip(1.0 - fewer, 0.0, 1.0), 0.0, 1.0))


def ring_needed(harm: Harm, watch: Watch, ring: Ring, hours: float, certain: float) -> int:
    """Return the smallest ring, to half a percent, that notices the harm within `hours` with this certainty.

    Raises:
        SoakError: no ring does.
    """
    check_certainty(certain)
    alone = msgspec.structs.replace(watch, tenants=1)

    def chance(devices: int) -> float:
        try:
            # The raw statistic needs fewer crashes and is quickly told: a ring that is too small for it is too small.
            raw = certainty(harm, alone, ring, devices, hours)
            return raw if raw < certain or watch.tenants == 1 else certainty(harm, watch, ring, devices, hours)
        except TooManyCrashesError:
            # A few devices of a large fleet; a larger ring is a larger share, unless that is fixed.
            if ring.share is not None:
                raise
            return 0.0

    low, high = 0, 1
    while chance(high) < certain:
        if high >= ring.devices_max:
            raise SoakError(
                f"no ring of up to {ring.devices_max} devices notices this within {hours:g} h with a certainty of "
                f"{certain:g}: soak longer, accept less certainty, or ask about a greater harm"
            )
        # In small steps where the share grows along: so many exposed that few controls are left notice less again.
        step = high if ring.share is not None else max(1, high // 5)
        low, high = high, min(high + step, ring.devices_max)
    while high - low > max(1, low // 200):
        middle = (low + high) // 2
        if chance(middle) >= certain:
            high = middle
        else:
            low = middle
    return high


def hours_needed(harm: Harm, watch: Watch, ring: Ring, devices: int, certain: float) -> float:
    """Return the hours, to half a percent, after which a ring of this size has noticed the harm with this certainty.

    Raises:
        SoakError: it takes over 90 days, or harm ends before.
    """
    check_certainty(certain)
    _check_devices(ring, devices)
    share = ring.share_of(devices)
    chances = crossings(harm.ratio, share, watch)
    last = HOURS_MAX if harm.window_hours is None else min(HOURS_MAX, harm.window_hours)
    best = _certainty(chances, harm, devices, share, last)
    if best < certain:
        when = "in 90 days" if last == HOURS_MAX else f"while it lasts ({last:g} h)"
        raise SoakError(
            f"a ring of {devices} devices notices this {when} with a certainty of {best:.2g}, not {certain:g}: make "
            f"the ring larger, or ask about a greater harm"
        )
    low, high = last / 2**30, last
    while high > 1.005 * low:
        middle = math.sqrt(low * high)
        if _certainty(chances, harm, devices, share, middle) >= certain:
            high = middle
        else:
            low = middle
    return high


def _check_devices(ring: Ring, devices: int) -> None:
    if not 1 <= devices <= ring.devices_max:
        raise SoakError(f"a ring of {devices} devices: give 1 to {ring.devices_max}, so that a control is left")
