"""What must be known of all chunks before anything is counted: little enough to keep for the largest fleet."""

import numpy as np

from detectors.backtest.cohort.facts import Facts
from detectors.backtest.cohort.uptime import NEVER
from detectors.backtest.draws import Bools, Ints


class Digest:
    """Gathers what chunks have in common.

    Args:
        updates: how many updates the scenario has.
        partitions: how many device partitions there are.

    Attributes:
        known_ms: by update, when the first device is known to be exposed; `NEVER` for never.
        first_harm_ms: by update, when it first harms; `NEVER` for never.
        meet_ms: by pair of updates and partition, when a device is first known to be exposed to both.
    """

    def __init__(self, updates: int, partitions: int) -> None:
        self.known_ms = [NEVER] * updates
        self.first_harm_ms = [NEVER] * updates
        self.meet_ms: Ints = np.full((updates, updates, partitions), NEVER, dtype=np.int64)
        self._took: list[list[Ints]] = [[] for _ in range(updates)]
        self._harmed: list[list[Bools]] = [[] for _ in range(updates)]
        self._arrivals: list[Ints] = []
        self._exposed: list[Bools] = []
        self._partitions: list[Ints] = []

    def add(self, facts: Facts) -> None:
        """Take a chunk."""
        chunk, crashes = facts.chunk, facts.crashes
        told = facts.arrives_ms < NEVER
        arrivals, device = facts.arrives_ms[told], crashes.device[told]
        exposed = np.zeros(len(device), dtype=np.bool_)
        for number, known in enumerate(facts.exposed_ms):
            exposed |= known[device] <= arrivals
            self.known_ms[number] = min(self.known_ms[number], int(known.min(initial=NEVER)))
            mine = crashes.update == number
            first = int(crashes.at_ms[mine].min(initial=NEVER))
            self.first_harm_ms[number] = min(self.first_harm_ms[number], first)
            took = (facts.taken[number].offered_ms < NEVER) & (chunk.invented < 0)
            self._took[number].append(facts.taken[number].offered_ms[took])
            self._harmed[number].append(facts.harmed[number][took])
            for other in range(number):
                both = np.maximum(known, facts.exposed_ms[other])
                np.minimum.at(self.meet_ms[number, other], chunk.partition, both)
                self.meet_ms[other, number] = self.meet_ms[number, other]
        self._arrivals.append(arrivals)
        self._exposed.append(exposed)
        self._partitions.append(chunk.partition[device])

    def arrivals(self) -> tuple[Ints, Bools, Ints]:
        """Return when crash reports arrive, which come from exposed devices, and in which partition; shapes (n,)."""
        return np.concatenate(self._arrivals), np.concatenate(self._exposed), np.concatenate(self._partitions)

    def taken(self, update: int) -> tuple[Ints, Bools]:
        """Return when devices took an update, ascending, and which of them it harms; shapes (n,)."""
        took, harmed = np.concatenate(self._took[update]), np.concatenate(self._harmed[update])
        order = np.argsort(took, kind="stable")
        return took[order], harmed[order]
