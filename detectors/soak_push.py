"""Planning a push: how many devices crash until the evidence suffices and the push stands still, and at which speed.

Beside `soak.py`, which asks how long a whole ring must soak. Here the ring is still being pushed: loss is about push
rate times decision delay, and the exposed share, which evidence is weighed by, grows as the push goes on. Plain numbers
only. Invariant: what is not known counts towards loss (crashes come as late as the asked-for certainty allows).
"""

import functools
import math
from typing import Final

import msgspec
import numpy as np
from scipy.special import gammaincinv, pdtrik

from detectors.sequential import SHARE_MIN, log_mean_exp, ratio_grid
from detectors.soak_question import DEVICES_MAX, SoakError, Watch, check_certainty

CRASHES_MAX: Final = 5000
# A push of more devices a second than this is all at once.
_RATE_MAX: Final = 1e7
_RATE_MIN: Final = 1e-4
_PRECISION: Final = 1.005
_SHARE_MOST: Final = 0.999


class Push(msgspec.Struct, frozen=True, kw_only=True):
    """A ring as it is pushed.

    Attributes:
        devices: devices of the ring, those that are held out included.
        share: the part of them that is pushed to.
        per_second: devices a second; infinite for all at once.
    """

    devices: int
    share: float = 1.0
    per_second: float = math.inf

    def __post_init__(self) -> None:
        """Refuse what is no ring."""
        if not 1 <= self.devices <= DEVICES_MAX:
            raise SoakError(f"a ring of {self.devices} devices: give 1 to {DEVICES_MAX}")
        if not 0.0 < self.share <= 1.0:
            raise SoakError(f"a share of {self.share:g}: give one over 0 and at most 1")
        if not self.per_second > 0.0:
            raise SoakError(f"a push of {self.per_second:g} devices a second: give a speed over 0")

    @property
    def pushed(self) -> float:
        """Devices that get the update in the end."""
        return self.devices * self.share


class PushHarm(msgspec.Struct, frozen=True, kw_only=True):
    """The harm that must be stopped in time, and how long everything but the evidence takes.

    Attributes:
        probability: chance that a device that takes the update crashes.
        reported: part of those whose crash is reported; one in a boot loop can't report.
        crash_seconds: from the push to a device until its crash is heard of.
        stop_seconds: from the crash that suffices until the push stands still.
        certain: how surely the loss is no greater than said.
    """

    probability: float
    crash_seconds: float
    stop_seconds: float
    reported: float = 1.0
    certain: float = 0.95

    def __post_init__(self) -> None:
        """Refuse what is no chance and no time."""
        if not 0.0 < self.probability <= 1.0:
            raise SoakError(f"the crash probability is {self.probability:g}: give one over 0 and at most 1")
        if not 0.0 < self.reported <= 1.0:
            raise SoakError(f"{self.reported:g} of the crashes are reported: give a part over 0 and at most 1")
        if not (0.0 <= self.crash_seconds < math.inf and 0.0 <= self.stop_seconds < math.inf):
            raise SoakError(f"{self.crash_seconds:g} s until a crash is heard of, {self.stop_seconds:g} s to stop")
        check_certainty(self.certain)


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """How a harmful push ends.

    Attributes:
        crashes: exposed crashes by which the evidence suffices; None where it does not before all devices have it.
        seconds: from its beginning until it stands still; None likewise.
        lost: devices that crash: of those that had the update by then, with the asked-for certainty; or of all, on
            average.
    """

    crashes: int | None
    seconds: float | None
    lost: float


def stopped(push: Push, harm: PushHarm, watch: Watch) -> Stopped:
    """Return how a harmful push ends.

    Devices are pushed to evenly; each crashes with the harm's probability, and is heard of `crash_seconds` later. The
    i-th report has come, with the asked-for certainty, by the time that G_i / (probability * reported) devices were
    pushed to so long ago, G_i being that quantile of the gamma distribution of shape i. The share at that moment is
    what the ring's rule bounds it by: all that were pushed to. Where tenants count, crashes are theirs in turn; at
    random, the evidence takes one or two more. Other crashes during the push are left out: they are few
    beside the harm's while it is at least ten times what devices crash anyway.
    """
    crashes = _crashes(push, harm, watch)
    lost_whole = push.pushed * harm.probability
    if crashes is None:
        return Stopped(crashes=None, seconds=None, lost=lost_whole)
    due = _due(crashes, harm)
    seconds = due / push.per_second + harm.crash_seconds + harm.stop_seconds
    by_then = push.pushed if math.isinf(push.per_second) else min(push.pushed, push.per_second * seconds)
    if by_then == push.pushed:
        return Stopped(crashes=crashes, seconds=seconds, lost=lost_whole)
    # Who was pushed to since the devices whose crashes decide: as many of them crash as surely not more do.
    since = float(pdtrik(harm.certain, harm.probability * (by_then - due))) if harm.probability < 1.0 else by_then - due
    return Stopped(crashes=crashes, seconds=seconds, lost=min(lost_whole, harm.probability * due + since))


def per_second_max(push: Push, harm: PushHarm, watch: Watch, loss_max: float) -> float:
    """Return the highest speed, in devices a second and to half a percent, at which the loss is within `loss_max`.

    Infinite where harm is within it at any speed; 0 where no speed is slow enough.
    """
    if push.pushed * harm.probability <= loss_max:
        return math.inf

    def lost(per_second: float) -> float:
        return stopped(msgspec.structs.replace(push, per_second=per_second), harm, watch).lost

    low, high = _RATE_MIN, _RATE_MAX
    if lost(low) > loss_max:
        return 0.0
    if lost(high) <= loss_max:
        return math.inf
    while high > _PRECISION * low:
        middle = math.sqrt(low * high)
        if lost(middle) <= loss_max:
            low = middle
        else:
            high = middle
    return low


def _due(crashes: int, harm: PushHarm) -> float:
    """Return how many devices must have had the time to crash, so that so many surely have reported it."""
    return float(gammaincinv(crashes, harm.certain)) / (harm.probability * harm.reported)


@functools.lru_cache(maxsize=4096)
def _crashes(push: Push, harm: PushHarm, watch: Watch) -> int | None:
    """Return the number of crashes, of tenants in turn, by which the evidence suffices; None if it does not."""
    ratios = ratio_grid(watch.tolerated_ratio)
    gain = np.log(ratios / watch.tolerated_ratio)
    log_m = np.zeros((watch.tenants, len(ratios)))
    ahead = 0.0 if math.isinf(push.per_second) else push.per_second * harm.crash_seconds
    for k in range(1, CRASHES_MAX + 1):
        due = _due(k, harm)
        there = push.pushed if math.isinf(push.per_second) else min(push.pushed, due + ahead)
        # So many must have crashed; and where everybody has the update, a crash is no evidence either way.
        if due > push.pushed or there > _SHARE_MOST * push.devices:
            return None
        share = min(max(there / push.devices, watch.share_least, SHARE_MIN), 1.0 - SHARE_MIN)
        step = gain - np.log1p((ratios - 1.0) * share) + np.log1p((watch.tolerated_ratio - 1.0) * share)
        log_m[(k - 1) % watch.tenants] += step
        if k < watch.devices_least:
            continue
        factor = np.logaddexp(math.log(watch.tenant_floor), math.log1p(-watch.tenant_floor) + log_m)
        left = log_m if watch.tenants == 1 else factor.sum(axis=0) - factor
        if float(log_mean_exp(left).min()) >= watch.log_needed:
            return k
    return None
