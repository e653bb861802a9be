"""Whether each simulated machine runs: switched on, down after a crash, and which boot it is in."""

import numpy as np

from detectors.backtest.draws import Bools, Ints
from detectors.backtest.population import Population
from detectors.backtest.wire import Wording

NEVER_MS = 2**62
# A machine that has just come up began to boot this long ago.
BOOT_TAKES_MS = 15_000


class Machines:
    """State of n machines, indexed by device.

    A machine is down from `down_ms` until before `up_ms`; both keep the latest outage. It is switched on or off as of
    its last check-in time, whether it checked in or not.
    """

    def __init__(self, population: Population, wording: Wording, start_ms: int, on: Bools) -> None:
        devices = population.devices
        self._wording = wording
        self.on = on.copy()
        self.down_ms = np.full(devices, -1, dtype=np.int64)
        self.up_ms = np.full(devices, -1, dtype=np.int64)
        self.boot = np.ones(devices, dtype=np.int64)
        # The next check-in lists versions: the first of a boot, after a change, and the first since the agent started.
        self.fresh = np.ones(devices, dtype=np.bool_)
        self._skew_ms = population.skew_ms.tolist()
        self._boot_at_ms = (start_ms - population.boot_age_ms).tolist()
        self._fragments: list[bytes | None] = [None] * devices

    def up(self, devices: Ints, times_ms: Ints) -> Bools:
        """Tell which devices are not down at the given times; shapes (n,)."""
        return (times_ms < self.down_ms[devices]) | (times_ms >= self.up_ms[devices])

    def running(self, devices: Ints, times_ms: Ints) -> Bools:
        """Tell which devices are switched on and not down at the given times; shapes (n,)."""
        return self.on[devices] & self.up(devices, times_ms)

    def go_down(self, devices: Ints, times_ms: Ints, up_ms: Ints) -> None:
        """Take machines down from `times_ms` until `up_ms` (`NEVER_MS`: nobody knows)."""
        self.down_ms[devices] = times_ms
        self.up_ms[devices] = up_ms

    def begin_boot(self, device: int, at_ms: int) -> None:
        """Begin a new boot of a machine that is up as of `at_ms`."""
        self.boot[device] += 1
        self.fresh[device] = True
        self._boot_at_ms[device] = at_ms - BOOT_TAKES_MS
        self._fragments[device] = None

    def fragment(self, device: int) -> bytes:
        """Return what all reports of the device's present boot share on the wire."""
        found = self._fragments[device]
        if found is None:
            boot_at_ms = self._boot_at_ms[device] + self._skew_ms[device]
            found = self._fragments[device] = self._wording.fragment(device, int(self.boot[device]), boot_at_ms)
        return found

    def fragments(self, devices: list[int]) -> list[bytes]:
        """Return `fragment` of each device."""
        known = self._fragments
        return [known[device] or self.fragment(device) for device in devices]
