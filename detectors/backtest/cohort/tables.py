"""Tables as sums of changes: what moves in or out of which place, by step and partition."""

from dataclasses import dataclass, field

import numpy as np

from detectors.backtest.cohort.cells import RolloutCells
from detectors.backtest.cohort.declaring import Watched
from detectors.backtest.cohort.hearing import MINUTE_MS, Runs
from detectors.backtest.cohort.people import People
from detectors.backtest.cohort.timeline import Timeline
from detectors.backtest.cohort.uptime import NEVER
from detectors.backtest.draws import Bools, Ints
from ingest.tenancy import GROUPS

# Compacted when so many waiting changes have come together.
_WAITING_MAX = 8_000_000


class Sums:
    """Counts by key, gathered from many arrays of keys."""

    def __init__(self) -> None:
        self._keys: list[Ints] = []
        self._counts: list[Ints] = []
        self._waiting = 0

    def add(self, keys: Ints, counts: Ints) -> None:
        """Add counts at keys; shapes (n,)."""
        found, place = np.unique(keys, return_inverse=True)
        sums = np.bincount(place, weights=counts, minlength=len(found)).astype(np.int64)
        self._keys.append(found[sums != 0])
        self._counts.append(sums[sums != 0])
        self._waiting += len(self._keys[-1])
        if self._waiting > _WAITING_MAX:
            keys, counts = self.total()
            self._keys, self._counts, self._waiting = [keys], [counts], 0

    def total(self) -> tuple[Ints, Ints]:
        """Return all keys with a count that is not 0, ascending, and the counts."""
        if not self._keys:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        found, place = np.unique(np.concatenate(self._keys), return_inverse=True)
        sums = np.bincount(place, weights=np.concatenate(self._counts), minlength=len(found)).astype(np.int64)
        return found[sums != 0], sums[sums != 0]


@dataclass
class RolloutTables:
    """What changes in one rollout's tables.

    Keys are `(step * partitions + partition) * size + place`, for strata with the minute's number instead of the
    step's and the check-in class before the place.

    Attributes:
        at_risk, margins, exposed: by step; `exposed` has one place.
        sizes: devices that check in, by minute, class and place.
        extra: devices last heard by another report than a check-in, by minute and place.
        silent: devices found silent, by the minute they were last heard in.
    """

    one: Watched
    cells: RolloutCells
    margin_names: list[str]
    at_risk: Sums = field(default_factory=Sums)
    margins: Sums = field(default_factory=Sums)
    exposed: Sums = field(default_factory=Sums)
    sizes: Sums = field(default_factory=Sums)
    extra: Sums = field(default_factory=Sums)
    silent: Sums = field(default_factory=Sums)

    @property
    def margin_places(self) -> int:
        """Size of the table of margins."""
        return len(self.margin_names) * GROUPS * 2


class Counter:
    """Adds timelines to tables.

    Args:
        times_ms: watermarks of the steps.
        partitions: how many device partitions there are.
        every_ms: time between check-ins; strata need whole minutes.
        silence_ms: how long after its last word a device is silent.
    """

    def __init__(self, people: People, times_ms: Ints, partitions: int, every_ms: int, silence_ms: int) -> None:
        self._people, self._times, self._partitions = people, times_ms, partitions
        self.classes = every_ms // MINUTE_MS
        self._silence_ms = silence_ms
        self.first_minute = int(times_ms[0]) // MINUTE_MS - 1

    def tables(self, one: Watched, rivals: list[str]) -> RolloutTables:
        """Return empty tables for a rollout."""
        names = [f"build={name}" for name in self._people.builds] + [f"model={name}" for name in self._people.models]
        return RolloutTables(one, RolloutCells(self._people, rivals), names)

    def count(self, tables: RolloutTables, line: Timeline, strata: bool) -> None:
        """Add a chunk's timeline to a rollout's tables; `strata` for silence, too."""
        chunk = line.facts.chunk
        partition = chunk.partition[line.device]
        # What happened before watching began is there at once; what comes after it ended is not told.
        at = np.maximum(line.at_ms, tables.one.said_ms)
        told = at < tables.one.until_ms
        step = np.searchsorted(self._times, at, side="right") * self._partitions + partition
        place = line.places(tables.cells)
        self._change(tables.at_risk, step, place, line.first, told, tables.cells.places)
        group = tables.cells.group(chunk.static[line.device])
        for number in (chunk.build[line.device], len(self._people.builds) + chunk.model[line.device]):
            margin = np.where(line.member, (number * GROUPS + group) * 2 + line.arm, -1)
            self._change(tables.margins, step, margin, line.first, told, tables.margin_places)
        self._change(tables.exposed, step, line.arm - 1, line.first, told, 1)
        if strata:
            self._strata(tables, line, place)

    def _change(self, sums: Sums, slot: Ints, place: Ints, first: Bools, told: Bools, size: int) -> None:
        before = np.where(first, -1, np.concatenate([[-1], place[:-1]])) if len(place) else place
        moved = (before != place) & told
        out, into = moved & (before >= 0), moved & (place >= 0)
        keys = np.concatenate([slot[out] * size + before[out], slot[into] * size + place[into]])
        sums.add(keys, np.concatenate([np.full(int(out.sum()), -1), np.full(int(into.sum()), 1)]))

    def _strata(self, tables: RolloutTables, line: Timeline, place: Ints) -> None:
        chunk, size = line.facts.chunk, tables.cells.places
        partition = chunk.partition[line.device]
        kind = (chunk.phase_ms[line.device] // MINUTE_MS) % self.classes
        minute = np.maximum(line.at_ms // MINUTE_MS - self.first_minute, 0)
        slot = (minute * self._partitions + partition) * self.classes + kind
        hearing = np.where(line.hearing, place, -1)
        everywhere = np.ones(len(line.device), dtype=np.bool_)
        self._change(tables.sizes, slot, hearing, line.first, everywhere, size)
        self._extras(tables, line, place)
        self._silent(tables, line, place)

    def _slot(self, devices: Ints, minutes: Ints, line: Timeline) -> Ints:
        return (minutes - self.first_minute) * self._partitions + line.facts.chunk.partition[devices]

    def _extras(self, tables: RolloutTables, line: Timeline, place: Ints) -> None:
        """Count devices that were last heard in a minute by something else than the check-in of that minute."""
        chunk = line.facts.chunk
        said = line.facts.said
        if not said:
            return
        devices = np.concatenate([one.devices for one in said])
        minutes = np.concatenate([one.made_ms for one in said]) // MINUTE_MS
        in_time = np.concatenate([one.arrives_ms for one in said]) < (minutes + 1) * MINUTE_MS
        devices, minutes = devices[in_time], minutes[in_time]
        pairs = np.unique((devices << 32) | minutes)
        devices, minutes = pairs >> 32, pairs & 0xFFFF_FFFF
        found = line.lookup(devices, (minutes + 1) * MINUTE_MS)
        if len(place) == 0:
            return
        checked_in = line.hearing[found] & ((minutes - chunk.phase_ms[devices] // MINUTE_MS) % self.classes == 0)
        there = np.where((found >= 0) & ~checked_in, place[found], -1)
        kept = there >= 0
        keys = self._slot(devices[kept], minutes[kept], line) * tables.cells.places + there[kept]
        tables.extra.add(keys, np.ones(len(keys), dtype=np.int64))

    def _silent(self, tables: RolloutTables, line: Timeline, place: Ints) -> None:
        """Count devices whose last word lies in a minute and that are not heard of until its overdue time."""
        runs: Runs = line.facts.runs
        minutes = runs.last_ms // MINUTE_MS
        ends = (minutes + 1) * MINUTE_MS
        overdue = ends + self._silence_ms
        quiet = np.flatnonzero((runs.next_ms >= overdue) | (runs.next_ms >= NEVER))
        devices, minutes, ends, overdue = runs.device[quiet], minutes[quiet], ends[quiet], overdue[quiet]
        found, later = line.lookup(devices, ends), line.lookup(devices, overdue)
        if len(place) == 0:
            return
        there = np.where((found >= 0) & line.member[found] & line.member[later], place[found], -1)
        # An offer told late makes a device exposed that its stratum's size still has as control.
        late = (line.since_ms[devices] < ends) & (line.exposed_ms[devices] >= ends)
        there = np.where(late & (line.exposed_ms[devices] < overdue) & (there >= 0), there | 1, there)
        kept = there >= 0
        keys = self._slot(devices[kept], minutes[kept], line) * tables.cells.places + there[kept]
        tables.silent.add(keys, np.ones(len(keys), dtype=np.int64))
