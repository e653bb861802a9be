"""Planning for the gate: how many exposed device-days until a healthy cell of the next ring may pass."""

import math
from typing import Final

import msgspec
from scipy.stats import poisson

from detectors.gate_cell import CellGate, HarmBound
from detectors.soak_question import SoakError, check_certainty

_CRASHES_MAX: Final = 20_000
_EXPECTED_MAX: Final = 1000.0


class GatePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one cell of the next ring needs before the gate lets it pass by its excess.

    Attributes:
        device_days_quiet: exposed device-days if nobody crashes.
        device_days: exposed device-days by which it has passed with the asked-for certainty, given the background; None
            if the background alone is too near to the harmful excess, and only the ratio can show health.
    """

    device_days_quiet: float
    device_days: float | None


def gate_needed(
    bound: HarmBound, alpha: float, crashes_per_device_day: float, certain: float, tenants: int = 1
) -> GatePlan:
    """Return what the gate needs of a healthy cell, of `tenants` equal groups of which any one is left out.

    The certainty is a lower bound: the ratio's evidence is left out, and crashes of the group that is left out count.

    Raises:
        SoakError: the certainty or the number of tenants is out of range.
    """
    check_certainty(certain)
    if tenants < 1:
        raise SoakError(f"{tenants} tenants: give 1 at least")
    counted = 1.0 if tenants == 1 else (tenants - 1) / tenants
    log_needed = -math.log(alpha)
    cell = CellGate(bound)
    quiet = _days_of(cell, log_needed)
    for crashes in range(_CRASHES_MAX):
        days = _days_of(cell, log_needed) / counted
        # With so many days the cell passes if no more than `crashes` came.
        if float(poisson.cdf(crashes, crashes_per_device_day * days)) >= certain:
            return GatePlan(device_days_quiet=quiet / counted, device_days=days)
        if days * bound.rate > _EXPECTED_MAX:
            break
        cell.add(0, True, 0.0)
    return GatePlan(device_days_quiet=quiet / counted, device_days=None)


def _days_of(cell: CellGate, log_needed: float) -> float:
    days = cell.days_needed(log_needed, leave_one_out=False)
    assert days is not None
    return days
