"""What is due when: events of the simulated fleet, kept in buckets of one step each."""

import enum
from dataclasses import dataclass

import numpy as np

from detectors.backtest.draws import Ints

BACKGROUND = -1


class Due(enum.IntEnum):
    """What happens to a device."""

    ASSIGNED = 1  # the rollout system gets to it
    OFFERED = 2
    REBOOTS = 3  # to activate an update
    LOADS = 4
    INSTALLED = 5
    CRASHES = 6  # for a reason of its own
    RETURNS = 7  # up again after one crash
    REPORTS = 8  # from the recovery environment, still down
    RECOVERS = 9  # out of the boot loop


@dataclass(frozen=True, slots=True)
class Event:
    """The same thing happening to some devices.

    Attributes:
        devices: their indexes, shape (n,).
        times_ms: when it happens to each, shape (n,).
        about: number of the update, or `BACKGROUND` for what has nothing to do with one.
    """

    due: Due
    devices: Ints
    times_ms: Ints
    about: int


class Agenda:
    """Events by step. What comes too late for its step is done in the next one, at its own time."""

    def __init__(self, origin_ms: int, step_ms: int) -> None:
        self._origin_ms = origin_ms
        self._step_ms = step_ms
        self._buckets: dict[int, list[Event]] = {}
        self._open = 0

    def add(self, due: Due, devices: Ints, times_ms: Ints, about: int) -> None:
        """Put events on the agenda; `devices` and `times_ms` have the same shape (n,)."""
        if len(devices) == 0:
            return
        first = max(int(times_ms.min() - self._origin_ms) // self._step_ms, self._open)
        if int(times_ms.max() - self._origin_ms) // self._step_ms <= first:
            order = np.argsort(times_ms, kind="stable")
            self._buckets.setdefault(first, []).append(Event(due, devices[order], times_ms[order], about))
            return
        buckets = np.maximum((times_ms - self._origin_ms) // self._step_ms, self._open)
        order = np.lexsort((times_ms, buckets))
        cuts = np.flatnonzero(np.diff(buckets[order])) + 1
        for part in np.split(order, cuts):
            event = Event(due, devices[part], times_ms[part], about)
            self._buckets.setdefault(int(buckets[part[0]]), []).append(event)

    def take(self) -> list[Event]:
        """Remove and return what is due in the open step; handling it may add more, so take until there is none."""
        return sorted(self._buckets.pop(self._open, []), key=lambda event: event.due)

    def close(self) -> None:
        """Go on to the next step."""
        self._open += 1
