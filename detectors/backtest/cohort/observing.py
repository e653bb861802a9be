"""What an observer of the whole fleet sees minute by minute, by time of arrival: what Cordon's peers work on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import numpy.typing as npt

from detectors.backtest.cohort.facts import Facts
from detectors.backtest.cohort.kinds import Kinds
from detectors.backtest.cohort.people import People
from detectors.backtest.cohort.timeline import Timeline
from detectors.backtest.cohort.uptime import NEVER
from detectors.backtest.draws import Ints
from detectors.backtest.trace import Minute

MINUTE_MS = 60_000

Counts = npt.NDArray[np.int64]


@dataclass(slots=True)
class _Crash:
    """Crash reports of one minute."""

    arms: list[int] = field(default_factory=lambda: [0, 0])
    users: list[set[int]] = field(default_factory=lambda: [set(), set()])
    signatures: dict[str, list[int]] = field(default_factory=dict)
    models: dict[int, list[int]] = field(default_factory=dict)


class Minutes(Sequence[Minute]):
    """The minutes of one update, made when they are asked for; a scenario of months has a hundred thousand."""

    def __init__(self, begin_ms: int, models: list[str], devices: Counts, active: Counts, crashes: dict[int, _Crash]):
        self._begin_ms, self._models = begin_ms, models
        self._devices, self._active, self._crashes = devices, active, crashes

    def __len__(self) -> int:
        return len(self._active)

    @overload
    def __getitem__(self, place: int) -> Minute: ...
    @overload
    def __getitem__(self, place: slice) -> list[Minute]: ...
    def __getitem__(self, place: int | slice) -> Minute | list[Minute]:
        if isinstance(place, slice):
            return [self._minute(number) for number in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"minute {place} of {len(self)}")
        return self._minute(place % len(self))

    def __iter__(self) -> Iterator[Minute]:
        return (self._minute(number) for number in range(len(self)))

    def _minute(self, number: int) -> Minute:
        devices = self._devices[number]
        control, exposed = devices.sum(axis=0).tolist()
        active_control, active_exposed = self._active[number].tolist()
        crash = self._crashes.get(number, _NONE)
        models = {}
        for model, (others, on) in enumerate(devices.tolist()):
            by_model = crash.models.get(model, _ZERO)
            if others or on or any(by_model):
                models[self._models[model]] = (on, others, by_model[1], by_model[0])
        return Minute(
            at_ms=self._begin_ms + (number + 1) * MINUTE_MS,
            exposed=exposed,
            control=control,
            active_exposed=active_exposed,
            active_control=active_control,
            crashes_exposed=crash.arms[1],
            crashes_control=crash.arms[0],
            users_exposed=len(crash.users[1]),
            users_control=len(crash.users[0]),
            signatures={name: (both[1], both[0]) for name, both in crash.signatures.items()},
            models=models,
        )


_NONE = _Crash()
_ZERO = [0, 0]


class Observer:
    """Gathers what is seen of one update.

    Args:
        begin_ms: its beginning; minutes are counted from the full minute before.
        end_ms: the scenario's end.
        classes: how many minutes lie between a device's check-ins.
    """

    def __init__(self, people: People, kinds: Kinds, begin_ms: int, end_ms: int, classes: int) -> None:
        self._people, self._kinds, self._classes = people, kinds, classes
        self._begin = begin_ms // MINUTE_MS
        self._count = max(0, end_ms // MINUTE_MS - self._begin)
        self._devices: Counts = np.zeros((self._count, len(people.models), 2), dtype=np.int64)
        self._active: Counts = np.zeros((self._count, classes, 2), dtype=np.int64)
        self._crashes: dict[int, _Crash] = {}

    def _slots(self, at_ms: Ints) -> Ints:
        return np.clip(at_ms // MINUTE_MS - self._begin, 0, None)

    def see(self, line: Timeline, exposed_ms: Ints, product: int) -> None:
        """Add a chunk's devices, as one rollout's timeline shows them, and its crash reports."""
        chunk = line.facts.chunk
        model = chunk.model[line.device]
        # Whoever is exposed stays so, heard of or not; a control is one that was heard within 26 hours.
        here = np.where(line.arm == 1, model * 2 + 1, np.where(line.present, model * 2, -1))
        self._change(self._devices, line, here)
        kind = (chunk.phase_ms[line.device] // MINUTE_MS) % self._classes
        self._change(self._active, line, np.where(line.hearing, kind * 2 + line.arm, -1))
        self._crash_reports(line.facts, exposed_ms, product)

    def _change(self, table: Counts, line: Timeline, place: Ints) -> None:
        before = np.where(line.first, -1, np.concatenate([[-1], place[:-1]])) if len(place) else place
        slot = self._slots(line.at_ms)
        moved = (before != place) & (slot < self._count)
        flat = table.reshape(self._count, -1)
        for where, sign in ((before, -1), (place, 1)):
            kept = moved & (where >= 0)
            np.add.at(flat, (slot[kept], where[kept]), sign)

    def _crash_reports(self, facts: Facts, exposed_ms: Ints, product: int) -> None:
        crashes, chunk = facts.crashes, facts.chunk
        seen = (facts.arrives_ms < NEVER) & (chunk.versions[product][crashes.device] >= 0)
        slots = facts.arrives_ms // MINUTE_MS - self._begin
        for number in np.flatnonzero(seen & (slots >= 0) & (slots < self._count)).tolist():
            device = int(crashes.device[number])
            arm = int(exposed_ms[device] <= facts.arrives_ms[number])
            crash = self._crashes.setdefault(int(slots[number]), _Crash())
            crash.arms[arm] += 1
            crash.users[arm].add(chunk.first + device)
            crash.signatures.setdefault(self._kinds.signatures[int(crashes.kind[number])], [0, 0])[arm] += 1
            crash.models.setdefault(int(chunk.model[device]), [0, 0])[arm] += 1

    def minutes(self) -> Minutes:
        """Return the minutes."""
        devices = np.cumsum(self._devices, axis=0)
        heard = np.cumsum(self._active, axis=0)
        kinds = (self._begin + np.arange(self._count)) % self._classes
        active = heard[np.arange(self._count), kinds]
        return Minutes(self._begin * MINUTE_MS, self._people.models, devices, active, self._crashes)
