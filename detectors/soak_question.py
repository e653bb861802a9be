"""What planning is asked: the harm, how evidence is weighed, and the ring. Plain numbers, checked when made."""

import math
from typing import Final

import msgspec

DEVICES_MAX: Final = 100_000_000
TENANTS_MAX: Final = 32
# The rest of the distribution is not computed: nobody asks for a higher certainty.
CERTAINTY_MAX: Final = 0.999


class SoakError(ValueError):
    """A question without an answer; the message says why and what to change."""


class TooManyCrashesError(SoakError):
    """More crashes are needed than anybody would wait for."""


class Harm(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be noticed.

    Attributes:
        ratio: rate ratio between exposed and control devices.
        crashes_per_device_day: what a device crashes without the update.
        window_hours: harm ends so many hours after a device got the update; None if it does not end.
    """

    ratio: float
    crashes_per_device_day: float
    window_hours: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no rate."""
        if not 0.0 < self.crashes_per_device_day < math.inf:
            raise SoakError(
                f"the background rate is {self.crashes_per_device_day} crashes per device and day: give one over 0; "
                f"where controls never crash, give the smallest rate you believe in"
            )
        if not 0.0 < self.ratio < math.inf:
            raise SoakError(f"the rate ratio is {self.ratio}: give one over 0, such as 2")
        if self.window_hours is not None and not 0.0 < self.window_hours < math.inf:
            raise SoakError(f"harm within {self.window_hours} hours: give a time over 0")

    def chance(self, hours: float) -> float:
        """Return the chance that an exposed device has crashed after so many hours."""
        at_risk = hours if self.window_hours is None else min(hours, self.window_hours)
        return -math.expm1(-self.crashes_per_device_day * self.ratio * at_risk / 24.0)


def harm_of_probability(probability: float, within_hours: float, crashes_per_device_day: float) -> Harm:
    """Return the harm that crashes each exposed device with this probability within so many hours, and then ends.

    Raises:
        SoakError: the probability does not lie between 0 and 1, or the time is not over 0.
    """
    if not 0.0 < probability < 1.0:
        raise SoakError(f"the crash probability is {probability}: give one between 0 and 1, such as 0.001")
    if not 0.0 < within_hours < math.inf:
        raise SoakError(f"harm within {within_hours} hours: give a time over 0")
    if not 0.0 < crashes_per_device_day < math.inf:
        # Harm's own message, for there is no ratio without a background.
        return Harm(ratio=1.0, crashes_per_device_day=crashes_per_device_day)
    hazard_per_day = -math.log1p(-probability) * 24.0 / within_hours
    return Harm(
        ratio=hazard_per_day / crashes_per_device_day,
        crashes_per_device_day=crashes_per_device_day,
        window_hours=within_hours,
    )


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """How evidence is weighed: a policy's numbers, for one threshold.

    Attributes:
        alpha: the chance of a false alarm that the threshold stands for.
        tolerated_ratio: the rate ratio that is still no harm.
        weight: the rate ratio's weight in the mean of e-values; the others stand at 1.
        share_least: told shares count as at least this much.
        devices_least: exposed devices that must have crashed.
        tenants: tenant groups of equal size; with 1 the raw statistic is asked, with more the least evidence over
            leaving any one out, with floors.
        tenant_floor: least factor of a group.
    """

    alpha: float
    tolerated_ratio: float = 1.5
    weight: float = 1.0
    share_least: float = 0.0
    devices_least: int = 1
    tenants: int = 1
    tenant_floor: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what no evidence could reach, or anything would."""
        if not 0.0 < self.alpha <= 1.0:
            raise SoakError(f"alpha is {self.alpha}: give a chance over 0 and at most 1, such as 1e-6")
        if not 0.0 < self.weight <= 1.0:
            raise SoakError(f"the rate ratio's weight is {self.weight}: only what it sees can be planned; give it one")
        if not 1 <= self.tenants <= TENANTS_MAX:
            raise SoakError(f"{self.tenants} tenants: give 1 to {TENANTS_MAX}, the groups that evidence is kept by")

    @property
    def log_needed(self) -> float:
        """Natural log of what the rate ratio's e-value alone has to reach."""
        return math.log(max((1.0 / self.alpha - (1.0 - self.weight)) / self.weight, 1.0))


class Ring(msgspec.Struct, frozen=True, kw_only=True):
    """How exposed devices stand to the others of their cell: a fixed share, or a ring out of a fleet of fixed size.

    Attributes:
        share: exposed share of the devices at risk; None where the fleet's size is given.
        fleet: devices in all, of which a ring of n is n / fleet; None where the share is given.
    """

    share: float | None = None
    fleet: int | None = None

    def __post_init__(self) -> None:
        """Refuse what leaves no control."""
        if (self.share is None) == (self.fleet is None):
            raise SoakError("give either the exposed share or the fleet's size")
        if self.share is not None and not 0.0 < self.share < 1.0:
            raise SoakError(
                f"the exposed share is {self.share}: give one between 0 and 1; with no control left at all the rate "
                f"ratio sees nothing, and only a known baseline or silence would"
            )
        if self.fleet is not None and self.fleet < 2:
            raise SoakError(f"a fleet of {self.fleet} has no control: give 2 devices at least")

    @property
    def devices_max(self) -> int:
        """The largest ring that leaves a control."""
        return DEVICES_MAX if self.fleet is None else self.fleet - 1

    def share_of(self, devices: int) -> float:
        """Return the exposed share at risk if so many devices are exposed."""
        if self.share is not None:
            return self.share
        assert self.fleet is not None
        return devices / self.fleet


def check_certainty(certain: float) -> None:
    """Refuse a certainty that is none.

    Raises:
        SoakError: it does not lie over 0 and under `CERTAINTY_MAX`.
    """
    if not 0.0 < certain < CERTAINTY_MAX:
        raise SoakError(f"the certainty is {certain}: give one over 0 and under {CERTAINTY_MAX}, such as 0.95")
