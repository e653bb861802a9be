"""The simulated fleet: step by step of event time, the reports that its devices post, and what is true of them.

Devices check in at their own phase while switched on, take updates, crash, reboot, loop and recover. Everything is
vectorised over the devices concerned in a step. Feedback comes in by `stop` and `resume`, as from a rollout system.
Invariant: two runs with one seed differ only by what was stopped (see `draws`).
"""

from dataclasses import dataclass

import numpy as np

from detectors.backtest import wire
from detectors.backtest.agenda import Agenda, Due
from detectors.backtest.draws import Draws, Floats, Ints
from detectors.backtest.happenings import Happenings
from detectors.backtest.machines import Machines
from detectors.backtest.outbox import CheckIns, Outbox, Saying
from detectors.backtest.population import Daylight, populate, versions_found
from detectors.backtest.scenario import Scenario
from detectors.backtest.shipment import Shipment
from detectors.backtest.wire import Wording


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
        draws = Draws(scenario.seed)
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
        self._down_worst = 0
        self._happenings = Happenings(
            scenario, self.population, self._machines, self.shipments, self.wording, draws, self._agenda
        )
        self._happenings.plan_ahead()

    @property
    def crash_reports(self) -> int:
        """How many bsod and boot_loop reports were made, whether or not they arrived."""
        return self._happenings.crash_reports

    @property
    def done(self) -> bool:
        """Tell whether the scenario's time is over."""
        return self.now_ms >= self.scenario.end_ms

    def step(self) -> list[bytes]:
        """Move on by one step of event time and return the reports posted in it, each as JSON, in order."""
        until_ms = self.now_ms + self.scenario.step_ms
        sayings: list[Saying] = []
        self._happenings.happen(self.now_ms, sayings)
        check_ins = self._check_ins(self.now_ms, until_ms)
        self.now_ms = until_ms
        self._down_worst = max(self._down_worst, self._happenings.down)
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
            down=self._happenings.down,
            down_worst=self._down_worst,
            silent=int(silent.sum()),
            recovered=int(recovered.sum()),
            first_crash_ms=min(firsts, default=None),
            background_crashes=self._happenings.background_crashes,
            running=int(self._machines.running(everyone, now).sum()),
        )

    def _check_ins(self, since_ms: int, until_ms: int) -> CheckIns:
        devices, times = self._turns(since_ms, until_ms)
        machines, population = self._machines, self.population
        on = population.switched_on[devices] < self._on_share(since_ms)[population.group[devices]]
        up = machines.up(devices, times)
        wakes = on & up & ~machines.on[devices]
        machines.on[devices] = np.where(up, on, machines.on[devices])
        self._happenings.boot(devices[wakes], times[wakes])
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
