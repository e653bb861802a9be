"""One update on its way to the simulated fleet: who gets it when, whether it still may, and what it did (the truth)."""

import numpy as np

from detectors.backtest.draws import Bools, Draws, Ints, Purpose
from detectors.backtest.fates import draw_fates
from detectors.backtest.machines import NEVER_MS
from detectors.backtest.population import NOT_FOUND, Population
from detectors.backtest.scenario import EVERYONE, Incident, Scenario, UpdatePlan
from detectors.backtest.wire import Wording


class Shipment:
    """An update's progress; arrays have shape (n,), indexed by device.

    Attributes:
        assigned_ms: when the rollout system gets to the device, `NEVER_MS` if it doesn't.
        taken: pushed: the device was about to activate it.
        crashed: the device loaded it and crashed on it (the truth; latched).
        reported: a report of that crash was posted.
        recovered: out of the boot loop again.
    """

    def __init__(
        self,
        number: int,
        scenario: Scenario,
        population: Population,
        versions: list[Ints],
        wording: Wording,
        draws: Draws,
    ) -> None:
        self.number = number
        self.plan: UpdatePlan = scenario.updates[number]
        keys = [(product.vendor, product.product) for product in scenario.products]
        self.product = keys.index((self.plan.vendor, self.plan.product))
        self.kind = scenario.products[self.product].kind
        self._versions = versions
        self._names = wording.version_names
        self._names[self.product].append(self.plan.version)
        self._new = len(self._names[self.product]) - 1
        self._draws = draws
        self._conditions = _condition(scenario, self.plan.incident)
        devices = population.devices
        incident = self.plan.incident
        self.fates = None if incident is None else draw_fates(incident, devices, number, draws)
        self.assigned_ms = self._assign(scenario, population)
        self.taken = np.zeros(devices, dtype=np.bool_)
        self.crashed = np.zeros(devices, dtype=np.bool_)
        self.reported = np.zeros(devices, dtype=np.bool_)
        self.recovered = np.zeros(devices, dtype=np.bool_)
        self.activated_ms = np.full(devices, NEVER_MS, dtype=np.int64)
        self._previous = np.full(devices, NOT_FOUND, dtype=np.int64)
        # Batches of devices that could recover if only the update were withdrawn.
        self.stuck: list[Ints] = []
        self.first_crash_ms: int | None = None
        after = self.plan.reverted_after_seconds
        self._reverted_ms = NEVER_MS if after is None else scenario.rollout_ms + round(after * 1000)
        self._stops: list[tuple[int, int]] = []

    def _assign(self, scenario: Scenario, population: Population) -> Ints:
        names = [ring.name for ring in scenario.fleet.rings]
        found = self._versions[self.product] != NOT_FOUND
        assigned = np.full(population.devices, NEVER_MS, dtype=np.int64)
        for push in self.plan.rings:
            eligible = found if push.name == EVERYONE else found & (population.ring == names.index(push.name))
            members = np.flatnonzero(eligible)
            order = np.argsort(self._draws.uniform(Purpose.PUSH_ORDER, members, self.number), kind="stable")
            chosen = members[order[: round(push.share * len(members))]]
            # Evenly by rank, not at random: a declared rule's bound then holds at every moment.
            part = (np.arange(len(chosen)) + 1) / max(1, len(chosen))
            starts_ms = scenario.rollout_ms + round(push.starts_after_seconds * 1000)
            assigned[chosen] = starts_ms + np.rint(part * push.over_seconds * 1000).astype(np.int64)
        return assigned

    def stop(self, at_ms: int) -> None:
        """Push to nobody from `at_ms` on, until resumed. Stopping a stopped one changes nothing."""
        if not self._stops or self._stops[-1][1] != NEVER_MS:
            self._stops.append((at_ms, NEVER_MS))
        elif at_ms < self._stops[-1][0]:
            self._stops[-1] = (at_ms, NEVER_MS)

    def resume(self, at_ms: int) -> None:
        """Push again from `at_ms` on; devices passed over get it at their next check-in."""
        if self._stops and self._stops[-1][1] == NEVER_MS:
            self._stops[-1] = (self._stops[-1][0], max(at_ms, self._stops[-1][0]))

    def allowed(self, times_ms: Ints) -> Bools:
        """Tell at which of the times a push may happen."""
        may = times_ms < self._reverted_ms
        for since_ms, until_ms in self._stops:
            may &= (times_ms < since_ms) | (times_ms >= until_ms)
        return may

    def withdrawn(self, at_ms: int) -> bool:
        """Tell whether the update is reverted or stopped: a machine that reaches the network then gets rid of it."""
        return not bool(self.allowed(np.array([at_ms], dtype=np.int64))[0])

    def activate(self, devices: Ints, times_ms: Ints) -> None:
        """Put the new version on the devices' disks."""
        column = self._versions[self.product]
        self._previous[devices] = column[devices]
        column[devices] = self._new
        self.activated_ms[devices] = times_ms

    def revert(self, devices: Ints) -> None:
        """Put the version from before back on the devices' disks."""
        self._versions[self.product][devices] = self._previous[devices]
        self.activated_ms[devices] = NEVER_MS

    def victims(self, devices: Ints) -> Bools:
        """Tell which of the devices that load the update now crash on it."""
        if self.fates is None:
            return np.zeros(len(devices), dtype=np.bool_)
        hit = self.fates.crashes[devices]
        if self._conditions is not None:
            product, wanted = self._conditions
            hit = hit & wanted[self._versions[product][devices]]
        return hit

    def note_crashes(self, devices: Ints, times_ms: Ints) -> None:
        """Record the truth: these devices crashed on the update."""
        self.crashed[devices] = True
        if len(times_ms):
            first = int(times_ms.min())
            self.first_crash_ms = first if self.first_crash_ms is None else min(first, self.first_crash_ms)


def _condition(scenario: Scenario, incident: Incident | None) -> tuple[int, Bools] | None:
    """Return the product that the harm depends on, and by its version's number whether there is harm."""
    if incident is None or incident.only_with is None:
        return None
    condition = incident.only_with
    keys = [(product.vendor, product.product) for product in scenario.products]
    product = keys.index((condition.vendor, condition.product))
    names = [version.name for version in scenario.products[product].versions]
    # The last place stands for devices without the product (`NOT_FOUND` is -1); new versions do no harm either.
    wanted = [name in condition.versions for name in names] + [False] * (len(scenario.updates) + 1)
    return product, np.array(wanted, dtype=np.bool_)
