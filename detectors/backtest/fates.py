"""What an update will do to each device that loads it: drawn once for all devices, looked up when it happens."""

from dataclasses import dataclass

import numpy as np

from detectors.backtest.draws import Bools, Draws, Floats, Ints, Purpose
from detectors.backtest.scenario import Incident


@dataclass(frozen=True, slots=True)
class Fates:
    """Fates under one incident; every array has shape (n,), indexed by device.

    Attributes:
        crashes: it crashes on loading the update, if the incident's condition holds for it.
        loops: then it boots and crashes for ever; otherwise it comes back after one crash.
        boot_seconds: how long one round of its boot loop takes.
        speaks: while looping it gets a boot-loop report out.
        speaks_after_ms: how long after its crash that is.
        recovers: it gets out of the loop once the update is withdrawn.
        recovers_after_ms: not before this long after its crash.
        next_boot_ms: how far its next boot is, seen from any moment.
    """

    crashes: Bools
    loops: Bools
    boot_seconds: Floats
    speaks: Bools
    speaks_after_ms: Ints
    recovers: Bools
    recovers_after_ms: Ints
    next_boot_ms: Ints


def draw_fates(incident: Incident, devices: int, update: int, draws: Draws) -> Fates:
    """Draw the fates of `devices` devices under update number `update`."""
    keys = np.arange(devices, dtype=np.int64)

    def share(purpose: Purpose, part: float) -> Bools:
        return draws.uniform(purpose, keys, update) < part

    boot_seconds = draws.between(Purpose.BOOT_SECONDS, keys, incident.boot_seconds, update)
    low, high = incident.recover_boots
    boots = np.floor(draws.between(Purpose.RECOVERS_BOOTS, keys, (low, high + 1), update))
    return Fates(
        crashes=share(Purpose.CRASHES, incident.crash_probability),
        loops=share(Purpose.LOOPS, incident.boot_loop_share),
        boot_seconds=boot_seconds,
        speaks=share(Purpose.REPORTS, incident.report_share),
        speaks_after_ms=to_ms(draws.between(Purpose.REPORTS_AFTER, keys, incident.report_after_seconds, update)),
        recovers=share(Purpose.RECOVERS, incident.recover_share),
        recovers_after_ms=to_ms(boots * boot_seconds),
        next_boot_ms=to_ms(draws.uniform(Purpose.NEXT_BOOT, keys, update) * boot_seconds),
    )


def to_ms(seconds: Floats) -> Ints:
    """Turn seconds into whole milliseconds."""
    return np.rint(seconds * 1000).astype(np.int64)
