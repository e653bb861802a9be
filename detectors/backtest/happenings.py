"""What happens to devices: pushed, activated, crashed, back again; the handlers of everything on the agenda.

Between `fleet`, which moves time on and lets devices check in, and the arrays of `machines` and `shipment`, which keep
the state. A handler says what the device would post and puts on the agenda what follows. Invariant: whoever is down
says nothing, except a boot loop from the recovery environment.
"""

from collections.abc import Callable

import numpy as np

from detectors.backtest import wire
from detectors.backtest.agenda import BACKGROUND, Agenda, Due, Event
from detectors.backtest.draws import Draws, Ints, Purpose
from detectors.backtest.fates import to_ms
from detectors.backtest.machines import NEVER_MS, Machines
from detectors.backtest.outbox import Saying
from detectors.backtest.population import Population
from detectors.backtest.scenario import Scenario
from detectors.backtest.shipment import Shipment
from detectors.backtest.wire import Wording

_DAY_SECONDS = 86_400.0


class Happenings:
    """Handles events on the agenda.

    Attributes:
        down: devices that crashed on an update and have not come back from it yet.
        background_crashes: crashes so far that have nothing to do with an update.
        crash_reports: bsod and boot_loop reports made so far, whether or not they arrived.
    """

    def __init__(
        self,
        scenario: Scenario,
        population: Population,
        machines: Machines,
        shipments: list[Shipment],
        wording: Wording,
        draws: Draws,
        agenda: Agenda,
    ) -> None:
        self._scenario = scenario
        self._population = population
        self._machines = machines
        self._shipments = shipments
        self._wording = wording
        self._draws = draws
        self._agenda = agenda
        self._check_in_ms = round(scenario.fleet.check_in_seconds * 1000)
        self.down = 0
        self.background_crashes = 0
        self.crash_reports = 0
        self._happen: dict[Due, Callable[[Event, list[Saying]], None]] = {
            Due.ASSIGNED: self._assigned,
            Due.OFFERED: self._offered,
            Due.REBOOTS: self._reboots,
            Due.LOADS: self._loads,
            Due.INSTALLED: self._installed,
            Due.CRASHES: self._crashes,
            Due.RETURNS: self._returns,
            Due.REPORTS: self._reports,
            Due.RECOVERS: self._recovers,
        }

    def plan_ahead(self) -> None:
        """Put on the agenda what is known from the start: pushes, and crashes for other reasons."""
        for shipment in self._shipments:
            if shipment.plan.delivery == "push":
                planned = np.flatnonzero(shipment.assigned_ms < NEVER_MS)
                self._agenda.add(Due.ASSIGNED, planned, shipment.assigned_ms[planned], shipment.number)
        scenario = self._scenario
        rate = scenario.background.crashes_per_device_day * scenario.duration_seconds / _DAY_SECONDS
        # A device's number of crashes is Poisson; beyond the second one in a scenario of hours nothing is left of it.
        keys = np.arange(self._population.devices, dtype=np.int64)
        chance = self._draws.uniform(Purpose.BACKGROUND_COUNT, keys)
        for nth, tail in enumerate((1 - np.exp(-rate), 1 - np.exp(-rate) * (1 + rate))):
            struck = np.flatnonzero(chance < tail)
            part = self._draws.uniform(Purpose.BACKGROUND_TIME, struck, nth)
            times = scenario.start_ms + (part * (scenario.end_ms - scenario.start_ms)).astype(np.int64)
            self._agenda.add(Due.CRASHES, struck, times, BACKGROUND)

    def happen(self, now_ms: int, sayings: list[Saying]) -> None:
        """Do everything due in the open step, which begins at `now_ms`; `sayings` takes what devices say."""
        self._release_stuck(now_ms)
        while events := self._agenda.take():
            for event in events:
                self._happen[event.due](event, sayings)
        self._agenda.close()

    def _assigned(self, event: Event, sayings: list[Saying]) -> None:
        reached = self._machines.running(event.devices, event.times_ms)
        self._offered(Event(Due.OFFERED, event.devices[reached], event.times_ms[reached], event.about), sayings)

    def _offered(self, event: Event, sayings: list[Saying]) -> None:
        shipment = self._shipments[event.about]
        go = shipment.allowed(event.times_ms) & ~shipment.taken[event.devices]
        go &= self._machines.running(event.devices, event.times_ms)
        devices, times = event.devices[go], event.times_ms[go]
        shipment.taken[devices] = True
        tail = wire.update_tail(shipment.plan, shipment.kind)
        for device, time_ms in zip(devices.tolist(), times.tolist(), strict=True):
            fragment = self._machines.fragment(device)
            sayings.append(Saying(time_ms, device, wire.OFFERED_HEAD, fragment, time_ms, tail))
        due = Due.REBOOTS if shipment.plan.reboots else Due.LOADS
        self._agenda.add(due, devices, times + round(shipment.plan.activation_seconds * 1000), shipment.number)

    def _ready(self, event: Event) -> tuple[Ints, Ints]:
        """Return who can do it now; the others get it on the agenda again for when they run."""
        able = self._machines.running(event.devices, event.times_ms)
        others, up_ms = event.devices[~able], self._machines.up_ms[event.devices[~able]]
        again = np.where(up_ms > event.times_ms[~able], up_ms + 1000, event.times_ms[~able] + self._check_in_ms)
        comes_back = up_ms < NEVER_MS
        self._agenda.add(event.due, others[comes_back], again[comes_back], event.about)
        return event.devices[able], event.times_ms[able]

    def _reboots(self, event: Event, _: list[Saying]) -> None:
        devices, times = self._ready(event)
        up_ms = times + self._reboot_ms(devices)
        self._machines.go_down(devices, times, up_ms)
        self._agenda.add(Due.LOADS, devices, up_ms, event.about)

    def _loads(self, event: Event, _: list[Saying]) -> None:
        shipment = self._shipments[event.about]
        devices, times = self._ready(event)
        if shipment.plan.reboots:
            self.boot(devices, times)
        shipment.activate(devices, times)
        self._machines.fresh[devices] = True
        hit = shipment.victims(devices)
        after_ms = round(shipment.plan.installed_after_seconds * 1000)
        self._agenda.add(Due.INSTALLED, devices[~hit], times[~hit] + after_ms, shipment.number)
        if hit.any():
            self._strike(shipment, devices[hit], times[hit])

    def _strike(self, shipment: Shipment, devices: Ints, times: Ints) -> None:
        """Crash the victims of an update, and decide what becomes of each."""
        fates, number = shipment.fates, shipment.number
        assert fates is not None
        shipment.note_crashes(devices, times)
        self.down += len(devices)
        loops = fates.loops[devices]
        up_ms = np.where(loops, NEVER_MS, times + self._reboot_ms(devices))
        self._machines.go_down(devices, times, up_ms)
        self._agenda.add(Due.RETURNS, devices[~loops], up_ms[~loops], number)
        devices, times = devices[loops], times[loops]
        speaks, recovers = fates.speaks[devices], fates.recovers[devices]
        speaks_ms = (times + fates.speaks_after_ms[devices])[speaks]
        self._agenda.add(Due.REPORTS, devices[speaks], speaks_ms, number)
        recovers_ms = (times + fates.recovers_after_ms[devices])[recovers]
        self._agenda.add(Due.RECOVERS, devices[recovers], recovers_ms, number)

    def _installed(self, event: Event, sayings: list[Saying]) -> None:
        shipment = self._shipments[event.about]
        tail = wire.update_tail(shipment.plan, shipment.kind)
        devices, times = self._ready(event)
        for device, time_ms in zip(devices.tolist(), times.tolist(), strict=True):
            fragment = self._machines.fragment(device)
            sayings.append(Saying(time_ms, device, wire.INSTALLED_HEAD, fragment, time_ms, tail))

    def _crashes(self, event: Event, _: list[Saying]) -> None:
        able = self._machines.running(event.devices, event.times_ms)
        devices, times = event.devices[able], event.times_ms[able]
        self.background_crashes += len(devices)
        up_ms = times + self._reboot_ms(devices)
        self._machines.go_down(devices, times, up_ms)
        self._agenda.add(Due.RETURNS, devices, up_ms, BACKGROUND)

    def _returns(self, event: Event, sayings: list[Saying]) -> None:
        update = None if event.about == BACKGROUND else self._shipments[event.about]
        kinds = self._scenario.background.crashes
        boots = self._machines.boot[event.devices]
        picked = self._draws.choice(Purpose.BACKGROUND_WHAT, event.devices, [kind.weight for kind in kinds], boots)
        for device, time_ms, kind in zip(event.devices.tolist(), event.times_ms.tolist(), picked.tolist(), strict=True):
            incident = update.plan.incident if update is not None else None
            crash = kinds[kind] if incident is None else incident.crash
            tail = self._wording.crash_tail(device, crash, self._activated_ms(device))
            sayings.append(self._crash_saying(device, time_ms, wire.BSOD_HEAD, tail))
        self.boot(event.devices, event.times_ms)
        if update is not None and update.plan.incident is not None:
            self.down -= len(event.devices)
            update.reported[event.devices] = True
            if update.plan.incident.victims_say_installed:
                after_ms = round(update.plan.installed_after_seconds * 1000)
                self._agenda.add(Due.INSTALLED, event.devices, event.times_ms + after_ms, event.about)

    def _reports(self, event: Event, sayings: list[Saying]) -> None:
        """Post a boot loop from the recovery environment: the machine has a network there, but does not run."""
        shipment = self._shipments[event.about]
        still = ~self._machines.up(event.devices, event.times_ms)
        self._say_boot_loop(shipment, event.devices[still], event.times_ms[still], sayings)

    def _recovers(self, event: Event, sayings: list[Saying]) -> None:
        shipment = self._shipments[event.about]
        devices, times = event.devices, event.times_ms
        if not shipment.withdrawn(int(times[-1])):
            # While the bad version is what the network serves, reaching it does not help.
            shipment.stuck.append(devices)
            return
        self._say_boot_loop(shipment, devices, times, sayings)
        shipment.revert(devices)
        shipment.recovered[devices] = True
        self.down -= len(devices)
        self._machines.up_ms[devices] = times
        self.boot(devices, times)

    def _release_stuck(self, now_ms: int) -> None:
        """Let those who boot with a network, but to no avail so far, recover at their next boot once that helps."""
        for shipment in self._shipments:
            if shipment.stuck and shipment.fates and shipment.withdrawn(now_ms):
                devices = np.concatenate(shipment.stuck)
                shipment.stuck.clear()
                next_ms = now_ms + shipment.fates.next_boot_ms[devices]
                self._agenda.add(Due.RECOVERS, devices, next_ms, shipment.number)

    def _say_boot_loop(self, shipment: Shipment, devices: Ints, times: Ints, sayings: list[Saying]) -> None:
        incident, fates = shipment.plan.incident, shipment.fates
        assert incident is not None
        assert fates is not None
        new = ~shipment.reported[devices]
        devices, times = devices[new], times[new]
        down_seconds = (times - self._machines.down_ms[devices]) / 1000
        boots = np.maximum(2, down_seconds // fates.boot_seconds[devices]).astype(np.int64)
        for device, time_ms, count in zip(devices.tolist(), times.tolist(), boots.tolist(), strict=True):
            tail = self._wording.crash_tail(device, incident.crash, self._activated_ms(device), count)
            sayings.append(self._crash_saying(device, time_ms, wire.BOOT_LOOP_HEAD, tail))
        shipment.reported[devices] = True

    def _crash_saying(self, device: int, time_ms: int, head: bytes, tail: bytes) -> Saying:
        self.crash_reports += 1
        crashed_ms = int(self._machines.down_ms[device])
        return Saying(time_ms, device, head, self._machines.fragment(device), crashed_ms, tail)

    def _activated_ms(self, device: int) -> dict[int, int]:
        skew_ms = int(self._population.skew_ms[device])
        return {
            shipment.product: int(shipment.activated_ms[device]) + skew_ms
            for shipment in self._shipments
            if shipment.activated_ms[device] < NEVER_MS
        }

    def boot(self, devices: Ints, times: Ints) -> None:
        """Begin a new boot of devices that are up as of `times`; some crash again soon after."""
        if len(devices) == 0:
            return
        for device, time_ms in zip(devices.tolist(), times.tolist(), strict=True):
            self._machines.begin_boot(device, time_ms)
        boots = self._machines.boot[devices]
        unlucky = self._draws.uniform(Purpose.BACKGROUND_BOOT, devices, boots)
        struck = unlucky < self._scenario.background.crashes_per_boot
        after = self._draws.between(Purpose.BACKGROUND_TIME, devices[struck], (10.0, 300.0), 100 + boots[struck])
        self._agenda.add(Due.CRASHES, devices[struck], times[struck] + to_ms(after), BACKGROUND)

    def _reboot_ms(self, devices: Ints) -> Ints:
        span = self._scenario.background.reboot_seconds
        return to_ms(self._draws.between(Purpose.REBOOT_SECONDS, devices, span, self._machines.boot[devices]))
