"""The simulated fleet: step by step of event time, the reports that its devices post, and what is true of them.

Devices check in at their own phase while switched on, take updates, crash, reboot, loop and recover. Everything is
vectorised over the devices concerned in a step. Feedback comes in by `stop` and `resume`, as from a rollout system.
Invariant: two runs with one seed differ only by what was stopped (see `draws`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from detectors.backtest import wire
from detectors.backtest.agenda import BACKGROUND, Agenda, Due, Event
from detectors.backtest.draws import Draws, Floats, Ints, Purpose
from detectors.backtest.fates import to_ms
from detectors.backtest.machines import NEVER_MS, Machines
from detectors.backtest.outbox import CheckIns, Outbox, Saying
from detectors.backtest.population import Daylight, populate, versions_found
from detectors.backtest.scenario import Scenario
from detectors.backtest.shipment import Shipment
from detectors.backtest.wire import Wording

_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class TruthCounts:
    """What is true of the fleet, whether or not anybody reported it. Counts are of distinct devices.

    Attributes:
        at_ms: event time.
        pushed: took the update (of all updates of the scenario).
        lost: took an update and crashed on it; latched, so a device that recovers still counts.
        down: of the lost, those that have not come back from it yet.
        down_worst: the most that were down at any one step.
        silent: of those down, the ones that nobody has heard of.
        recovered: of the lost, those that came out of a boot loop.
        first_crash_ms: event time of the first crash on an update.
        background_crashes: crashes so far that have nothing to do with an update.
        running: devices switched on and not down.
    """

    at_ms: int
    pushed: int
    lost: int
    down: int
    down_worst: int
    silent: int
    recovered: int
    first_crash_ms: int | None
    background_crashes: int
    running: int


class Fleet:
    """A scenario's devices, moved on one step at a time."""

    def __init__(self, scenario: Scenario, devices: int | None = None) -> None:
        self.scenario = scenario
        self.devices = scenario.fleet.devices if devices is None else devices
        self.now_ms = scenario.start_ms
        self._draws = draws = Draws(scenario.seed)
        self.population = populate(scenario, self.devices, draws)
        self._versions = versions_found(scenario.products, self.devices, draws)
        self.wording = Wording(scenario, self.population, self._versions)
        self._daylight = Daylight(scenario)
        self._on_minute, self._on_now = 0, self._daylight.on_share(self.now_ms)
        on = self.population.switched_on < self._on_now[self.population.group]
        self._machines = Machines(self.population, self.wording, self.now_ms, on)
        self.shipments = [
            Shipment(number, scenario, self.population, self._versions, self.wording, draws)
            for number in range(len(scenario.updates))
        ]
        self._outbox = Outbox(scenario, self.population, self._machines, draws)
        self._agenda = Agenda(self.now_ms, scenario.step_ms)
        self._check_in_ms = round(scenario.fleet.check_in_seconds * 1000)
        self._by_phase = np.argsort(self.population.phase_ms, kind="stable")
        self._phases = self.population.phase_ms[self._by_phase]
        self._down = self._down_worst = self._background_crashes = self._crash_reports = 0
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
        self._plan_ahead()

    def _plan_ahead(self) -> None:
        for shipment in self.shipments:
            if shipment.plan.delivery == "push":
                planned = np.flatnonzero(shipment.assigned_ms < NEVER_MS)
                self._agenda.add(Due.ASSIGNED, planned, shipment.assigned_ms[planned], shipment.number)
        scenario = self.scenario
        rate = scenario.background.crashes_per_device_day * scenario.duration_seconds / _DAY_SECONDS
        # A device's number of crashes is Poisson; beyond the second one in a scenario of hours nothing is left of it.
        keys = np.arange(self.devices, dtype=np.int64)
        chance = self._draws.uniform(Purpose.BACKGROUND_COUNT, keys)
        for nth, tail in enumerate((1 - np.exp(-rate), 1 - np.exp(-rate) * (1 + rate))):
            struck = np.flatnonzero(chance < tail)
            part = self._draws.uniform(Purpose.BACKGROUND_TIME, struck, nth)
            times = scenario.start_ms + (part * (scenario.end_ms - scenario.start_ms)).astype(np.int64)
            self._agenda.add(Due.CRASHES, struck, times, BACKGROUND)

    # What a caller does with the fleet.

    @property
    def crash_reports(self) -> int:
        """How many bsod and boot_loop reports were made, whether or not they arrived."""
        return self._crash_reports

    @property
    def done(self) -> bool:
        """Tell whether the scenario's time is over."""
        return self.now_ms >= self.scenario.end_ms

    def step(self) -> list[bytes]:
        """Move on by one step of event time and return the reports posted in it, each as JSON, in order."""
        until_ms = self.now_ms + self.scenario.step_ms
        sayings: list[Saying] = []
        self._release_stuck()
        while events := self._agenda.take():
            for event in events:
                self._happen[event.due](event, sayings)
        self._agenda.close()
        check_ins = self._check_ins(self.now_ms, until_ms)
        self.now_ms = until_ms
        self._down_worst = max(self._down_worst, self._down)
        return self._outbox.post(sayings, check_ins, until_ms)

    def stop(self, vendor: str, product: str, version: str, at_ms: int) -> bool:
        """Stop pushing an update from event time `at_ms` on. False if there is no such update."""
        found = self._find(vendor, product, version)
        for shipment in found:
            shipment.stop(at_ms)
        return bool(found)

    def resume(self, vendor: str, product: str, version: str, at_ms: int) -> bool:
        """Push a stopped update again from `at_ms` on. False if there is no such update."""
        found = self._find(vendor, product, version)
        for shipment in found:
            shipment.resume(at_ms)
        return bool(found)

    def _find(self, vendor: str, product: str, version: str) -> list[Shipment]:
        key = (vendor, product, version)
        return [s for s in self.shipments if (s.plan.vendor, s.plan.product, s.plan.version) == key]

    def truth(self) -> TruthCounts:
        """Return what is true of the fleet now."""
        nobody = np.zeros(self.devices, dtype=np.bool_)
        crashed, recovered, reported, taken = nobody.copy(), nobody.copy(), nobody.copy(), nobody.copy()
        for shipment in self.shipments:
            crashed |= shipment.crashed
            recovered |= shipment.recovered
            reported |= shipment.reported & ~self.population.unheard
            taken |= shipment.taken
        everyone = np.arange(self.devices, dtype=np.int64)
        now = np.full(self.devices, self.now_ms - 1, dtype=np.int64)
        silent = crashed & ~reported & ~self._machines.up(everyone, now)
        firsts = [s.first_crash_ms for s in self.shipments if s.first_crash_ms is not None]
        return TruthCounts(
            at_ms=self.now_ms,
            pushed=int(taken.sum()),
            lost=int(crashed.sum()),
            down=self._down,
            down_worst=self._down_worst,
            silent=int(silent.sum()),
            recovered=int(recovered.sum()),
            first_crash_ms=min(firsts, default=None),
            background_crashes=self._background_crashes,
            running=int(self._machines.running(everyone, now).sum()),
        )

    # Checking in.

    def _check_ins(self, since_ms: int, until_ms: int) -> CheckIns:
        devices, times = self._turns(since_ms, until_ms)
        machines, population = self._machines, self.population
        on = population.switched_on[devices] < self._on_share(since_ms)[population.group[devices]]
        up = machines.up(devices, times)
        wakes = on & up & ~machines.on[devices]
        machines.on[devices] = np.where(up, on, machines.on[devices])
        self._boot(devices[wakes], times[wakes])
        heard = on & up
        devices, times = devices[heard], times[heard]
        self._take_late(devices, times, until_ms)
        tails = [wire.END] * len(devices)
        for index in np.flatnonzero(machines.fresh[devices]).tolist():
            tails[index] = self.wording.check_in_tail(int(devices[index]))
        machines.fresh[devices] = False
        return CheckIns(devices, times, tails)

    def _on_share(self, at_ms: int) -> Floats:
        """Return the share switched on per group; it changes by the minute, so it is worked out once a minute."""
        minute = at_ms // 60_000
        if minute != self._on_minute:
            self._on_minute, self._on_now = minute, self._daylight.on_share(minute * 60_000)
        return self._on_now

    def _turns(self, since_ms: int, until_ms: int) -> tuple[Ints, Ints]:
        """Return the devices whose turn it is to check in, and when."""
        begin = (since_ms - self.scenario.start_ms) % self._check_in_ms
        end = begin + until_ms - since_ms
        low, high = np.searchsorted(self._phases, [begin, end])
        devices, phases = self._by_phase[low:high], self._phases[low:high]
        if end > self._check_in_ms:
            extra = int(np.searchsorted(self._phases, end - self._check_in_ms))
            devices = np.concatenate([devices, self._by_phase[:extra]])
            phases = np.concatenate([phases, self._phases[:extra] + self._check_in_ms])
        return devices, since_ms - begin + phases

    def _take_late(self, devices: Ints, times: Ints, until_ms: int) -> None:
        """Offer updates to devices that were off, or passed over, when the rollout system got to them."""
        for shipment in self.shipments:
            due = (shipment.assigned_ms[devices] <= times) & ~shipment.taken[devices] & shipment.allowed(times)
            late = devices[due]
            self._agenda.add(Due.OFFERED, late, np.full(len(late), until_ms, dtype=np.int64), shipment.number)

    # Updates.

    def _assigned(self, event: Event, sayings: list[Saying]) -> None:
        reached = self._machines.running(event.devices, event.times_ms)
        self._offered(Event(Due.OFFERED, event.devices[reached], event.times_ms[reached], event.about), sayings)

    def _offered(self, event: Event, sayings: list[Saying]) -> None:
        shipment = self.shipments[event.about]
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
        shipment = self.shipments[event.about]
        devices, times = self._ready(event)
        if shipment.plan.reboots:
            self._boot(devices, times)
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
        self._down += len(devices)
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
        shipment = self.shipments[event.about]
        tail = wire.update_tail(shipment.plan, shipment.kind)
        devices, times = self._ready(event)
        for device, time_ms in zip(devices.tolist(), times.tolist(), strict=True):
            fragment = self._machines.fragment(device)
            sayings.append(Saying(time_ms, device, wire.INSTALLED_HEAD, fragment, time_ms, tail))

    # Crashes and what comes after.

    def _crashes(self, event: Event, _: list[Saying]) -> None:
        able = self._machines.running(event.devices, event.times_ms)
        devices, times = event.devices[able], event.times_ms[able]
        self._background_crashes += len(devices)
        up_ms = times + self._reboot_ms(devices)
        self._machines.go_down(devices, times, up_ms)
        self._agenda.add(Due.RETURNS, devices, up_ms, BACKGROUND)

    def _returns(self, event: Event, sayings: list[Saying]) -> None:
        update = None if event.about == BACKGROUND else self.shipments[event.about]
        kinds = self.scenario.background.crashes
        boots = self._machines.boot[event.devices]
        picked = self._draws.choice(Purpose.BACKGROUND_WHAT, event.devices, [kind.weight for kind in kinds], boots)
        for device, time_ms, kind in zip(event.devices.tolist(), event.times_ms.tolist(), picked.tolist(), strict=True):
            incident = update.plan.incident if update is not None else None
            crash = kinds[kind] if incident is None else incident.crash
            tail = self.wording.crash_tail(device, crash, self._activated_ms(device))
            sayings.append(self._crash_saying(device, time_ms, wire.BSOD_HEAD, tail))
        self._boot(event.devices, event.times_ms)
        if update is not None and update.plan.incident is not None:
            self._down -= len(event.devices)
            update.reported[event.devices] = True
            if update.plan.incident.victims_say_installed:
                after_ms = round(update.plan.installed_after_seconds * 1000)
                self._agenda.add(Due.INSTALLED, event.devices, event.times_ms + after_ms, event.about)

    def _reports(self, event: Event, sayings: list[Saying]) -> None:
        """Post a boot loop from the recovery environment: the machine has a network there, but does not run."""
        shipment = self.shipments[event.about]
        still = ~self._machines.up(event.devices, event.times_ms)
        self._say_boot_loop(shipment, event.devices[still], event.times_ms[still], sayings)

    def _recovers(self, event: Event, sayings: list[Saying]) -> None:
        shipment = self.shipments[event.about]
        devices, times = event.devices, event.times_ms
        if not shipment.withdrawn(int(times[-1])):
            # While the bad version is what the network serves, reaching it does not help.
            shipment.stuck.append(devices)
            return
        self._say_boot_loop(shipment, devices, times, sayings)
        shipment.revert(devices)
        shipment.recovered[devices] = True
        self._down -= len(devices)
        self._machines.up_ms[devices] = times
        self._boot(devices, times)

    def _release_stuck(self) -> None:
        """Let those who boot with a network, but to no avail so far, recover at their next boot once that helps."""
        for shipment in self.shipments:
            if shipment.stuck and shipment.fates and shipment.withdrawn(self.now_ms):
                devices = np.concatenate(shipment.stuck)
                shipment.stuck.clear()
                next_ms = self.now_ms + shipment.fates.next_boot_ms[devices]
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
            tail = self.wording.crash_tail(device, incident.crash, self._activated_ms(device), count)
            sayings.append(self._crash_saying(device, time_ms, wire.BOOT_LOOP_HEAD, tail))
        shipment.reported[devices] = True

    def _crash_saying(self, device: int, time_ms: int, head: bytes, tail: bytes) -> Saying:
        self._crash_reports += 1
        crashed_ms = int(self._machines.down_ms[device])
        return Saying(time_ms, device, head, self._machines.fragment(device), crashed_ms, tail)

    def _activated_ms(self, device: int) -> dict[int, int]:
        skew_ms = int(self.population.skew_ms[device])
        return {
            shipment.product: int(shipment.activated_ms[device]) + skew_ms
            for shipment in self.shipments
            if shipment.activated_ms[device] < NEVER_MS
        }

    def _boot(self, devices: Ints, times: Ints) -> None:
        if len(devices) == 0:
            return
        for device, time_ms in zip(devices.tolist(), times.tolist(), strict=True):
            self._machines.begin_boot(device, time_ms)
        boots = self._machines.boot[devices]
        unlucky = self._draws.uniform(Purpose.BACKGROUND_BOOT, devices, boots)
        struck = unlucky < self.scenario.background.crashes_per_boot
        after = self._draws.between(Purpose.BACKGROUND_TIME, devices[struck], (10.0, 300.0), 100 + boots[struck])
        self._agenda.add(Due.CRASHES, devices[struck], times[struck] + to_ms(after), BACKGROUND)

    def _reboot_ms(self, devices: Ints) -> Ints:
        span = self.scenario.background.reboot_seconds
        return to_ms(self._draws.between(Purpose.REBOOT_SECONDS, devices, span, self._machines.boot[devices]))
