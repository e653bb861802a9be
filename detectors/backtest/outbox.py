"""What becomes of a report between the device and the gateway: numbered, then delayed, posted twice, or lost."""

import heapq
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from detectors.backtest.draws import Draws, Floats, Ints, Purpose
from detectors.backtest.machines import Machines
from detectors.backtest.population import Population
from detectors.backtest.scenario import Scenario
from detectors.backtest.wire import CHECK_IN_HEAD, report_bytes

# A reporter's numbers start at its epoch second times this (see `ingest.events`).
SEQ_PER_SECOND = 1 << 20
_ONCE, _TWICE, _DELAYED, _LOST = 0, 1, 2, 3


class Saying(NamedTuple):
    """A report about to be made.

    Attributes:
        time_ms: when the device makes it, true time.
        at_ms: when the thing happened, true time; the device's clock skew comes on top.
    """

    time_ms: int
    device: int
    head: bytes
    fragment: bytes
    at_ms: int
    tail: bytes


class CheckIns(NamedTuple):
    """The check-ins of one step in order of time, all of the same length; each device once."""

    devices: Ints
    times_ms: Ints
    tails: list[bytes]


class Outbox:
    """Numbers reports per device and decides how each travels.

    A delayed report waits on its device: if the machine is down or switched off when it is due, it goes out with the
    device's next report, as a reporter's spool does. So a machine in a boot loop never says anything, however late.
    """

    def __init__(self, scenario: Scenario, population: Population, machines: Machines, draws: Draws) -> None:
        self._telemetry = scenario.telemetry
        self._machines = machines
        self._draws = draws
        self._unheard = population.unheard
        self._skew_ms = population.skew_ms
        self._seq = np.full(population.devices, scenario.start_ms // 1000 * SEQ_PER_SECOND, dtype=np.int64)
        self._late: list[tuple[int, int, int, bytes]] = []
        self._spool: dict[int, list[bytes]] = {}
        self._spooled = np.zeros(population.devices, dtype=np.bool_)
        self._made = 0

    def post(self, sayings: list[Saying], check_ins: CheckIns, until_ms: int) -> list[bytes]:
        """Return what reaches the gateway before `until_ms`, in the order in which it was sent."""
        out = self._due(until_ms)
        check_ins = self._apart(sayings, check_ins)
        timed = self._check_in_bodies(check_ins)
        if sayings:
            timed += self._saying_bodies(sayings)
            timed.sort(key=itemgetter(0))
        out.extend(body for _, body in timed)
        return out

    def _apart(self, sayings: list[Saying], check_ins: CheckIns) -> CheckIns:
        """Move check-ins of devices that say something else too over to the sayings, to be numbered in order."""
        if not sayings or len(check_ins.devices) == 0:
            return check_ins
        others = {saying.device for saying in sayings}
        both = [index for index, device in enumerate(check_ins.devices.tolist()) if device in others]
        if not both:
            return check_ins
        for index in both:
            device, time_ms = int(check_ins.devices[index]), int(check_ins.times_ms[index])
            fragment, tail = self._machines.fragment(device), check_ins.tails[index]
            sayings.append(Saying(time_ms, device, CHECK_IN_HEAD, fragment, time_ms, tail))
        keep = np.ones(len(check_ins.devices), dtype=np.bool_)
        keep[both] = False
        tails = [tail for tail, kept in zip(check_ins.tails, keep.tolist(), strict=True) if kept]
        return CheckIns(check_ins.devices[keep], check_ins.times_ms[keep], tails)

    def _check_in_bodies(self, check_ins: CheckIns) -> list[tuple[int, bytes]]:
        devices, times_ms, tails = check_ins
        if len(devices) == 0:
            return []
        numbers = self._seq[devices]
        self._seq[devices] += 1
        at_ms = (times_ms + self._skew_ms[devices]).tolist()
        fragments = self._machines.fragments(devices.tolist())
        parts = zip(fragments, numbers.tolist(), at_ms, tails, strict=True)
        bodies = [b'{"kind":"check_in",%b%d,"at_ms":%d%b' % part for part in parts]
        timed = list(zip(times_ms.tolist(), bodies, strict=True))
        return self._travel(devices, times_ms, timed)

    def _saying_bodies(self, sayings: list[Saying]) -> list[tuple[int, bytes]]:
        sayings.sort(key=itemgetter(0))
        timed: list[tuple[int, bytes]] = []
        for time_ms, device, head, fragment, at_ms, tail in sayings:
            number = int(self._seq[device])
            self._seq[device] = number + 1
            at_ms += int(self._skew_ms[device])
            timed.append((time_ms, report_bytes(head, fragment, number, at_ms, tail)))
        devices = np.array([saying.device for saying in sayings], dtype=np.int64)
        return self._travel(devices, np.array([time_ms for time_ms, _ in timed], dtype=np.int64), timed)

    def _travel(self, devices: Ints, times_ms: Ints, timed: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Return what arrives at once: without the lost and the delayed, with duplicates and what was in the spool."""
        telemetry, seconds = self._telemetry, times_ms // 1000
        chance = self._draws.uniform(Purpose.FATE, devices, seconds)
        fates = np.zeros(len(devices), dtype=np.int64)
        fates[chance < telemetry.delayed_share + telemetry.duplicated_share] = _TWICE
        fates[chance < telemetry.delayed_share] = _DELAYED
        fates[self._unheard[devices]] = _LOST
        special = np.flatnonzero((fates != _ONCE) | self._spooled[devices])
        if len(special) == 0:
            return timed
        delays = self._delays(devices, seconds)
        arriving: list[tuple[int, bytes]] = []
        start = 0
        for index in special.tolist():
            arriving += timed[start:index]
            arriving += self._special(int(devices[index]), int(fates[index]), *timed[index], float(delays[index]))
            start = index + 1
        return arriving + timed[start:]

    def _special(
        self, device: int, fate: int, time_ms: int, body: bytes, delay_seconds: float
    ) -> list[tuple[int, bytes]]:
        if fate == _LOST:
            return []
        if fate == _DELAYED:
            self._made += 1
            heapq.heappush(self._late, (time_ms + round(delay_seconds * 1000), self._made, device, body))
            return []
        bodies = [*self._spool.pop(device, []), body]
        self._spooled[device] = False
        if fate == _TWICE:
            bodies.append(body)
        return [(time_ms, each) for each in bodies]

    def _delays(self, devices: Ints, seconds: Ints) -> Floats:
        drawn = self._draws.exponential(Purpose.DELAY, devices, self._telemetry.delay_seconds_mean, seconds)
        return np.minimum(drawn, self._telemetry.delay_seconds_max)

    def _due(self, until_ms: int) -> list[bytes]:
        out: list[bytes] = []
        while self._late and self._late[0][0] < until_ms:
            due_ms, _, device, body = heapq.heappop(self._late)
            index, time_ms = np.array([device], dtype=np.int64), np.array([due_ms], dtype=np.int64)
            if self._machines.running(index, time_ms)[0]:
                out.append(body)
            else:
                self._spool.setdefault(device, []).append(body)
                self._spooled[device] = True
        return out
