"""What becomes of a report between the device and the gateway: numbered, then delayed, posted twice, or lost."""

import heapq
from typing import NamedTuple

import numpy as np

from detectors.backtest.draws import Draws, Floats, Ints, Purpose
from detectors.backtest.machines import Machines
from detectors.backtest.population import Population
from detectors.backtest.scenario import Scenario
from detectors.backtest.wire import report_bytes

# A reporter's numbers start at its epoch second times this (see `ingest.events`).
SEQ_PER_SECOND = 1 << 20


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
        self._skew_ms: list[int] = population.skew_ms.tolist()
        self._seq = [scenario.start_ms // 1000 * SEQ_PER_SECOND] * population.devices
        self._late: list[tuple[int, int, int, bytes]] = []
        self._spool: dict[int, list[bytes]] = {}
        self._made = 0

    def post(self, sayings: list[Saying], until_ms: int) -> list[bytes]:
        """Return what reaches the gateway before `until_ms`, in the order in which it was sent."""
        out = self._due(until_ms)
        if not sayings:
            return out
        sayings.sort(key=lambda saying: saying.time_ms)
        devices = np.array([saying.device for saying in sayings], dtype=np.int64)
        seconds = np.array([saying.time_ms for saying in sayings], dtype=np.int64) // 1000
        telemetry, draws = self._telemetry, self._draws
        delayed = draws.uniform(Purpose.DELAYED, devices, seconds) < telemetry.delayed_share
        twice = draws.uniform(Purpose.DUPLICATED, devices, seconds) < telemetry.duplicated_share
        # 0: posted; 1: posted twice; 2: delayed; 3: never arrives.
        fates = np.where(self._unheard[devices], 3, np.where(delayed, 2, np.where(twice, 1, 0)))
        delays = self._delays(devices, seconds) if delayed.any() else seconds
        seq, skew_ms, spool = self._seq, self._skew_ms, self._spool
        for index, (saying, fate) in enumerate(zip(sayings, fates.tolist(), strict=True)):
            device = saying.device
            number = seq[device]
            seq[device] = number + 1
            if fate == 3:
                continue
            at_ms = saying.at_ms + skew_ms[device]
            body = report_bytes(saying.head, saying.fragment, number, at_ms, saying.tail)
            if fate == 2:
                self._made += 1
                due_ms = saying.time_ms + round(delays[index] * 1000)
                heapq.heappush(self._late, (due_ms, self._made, device, body))
                continue
            if spool and device in spool:
                out.extend(spool.pop(device))
            out.append(body)
            if fate == 1:
                out.append(body)
        return out

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
        return out
