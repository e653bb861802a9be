"""What reports do to one partition's devices: the fleet's rows, the count tables, and first crashes.

`Population` holds a partition's devices and everything derived from them; `Partition` beside it decides when. While
catching up after a restart, rows in chunks written later than a step have seen it already and are left alone.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ingest.events import RolloutNotice
from ingest.grouping.cells import Cells
from ingest.grouping.cohorts import Cohorts
from ingest.grouping.columns import UPDATES_MAX, Bsod, Columns, Dictionaries, keys_of
from ingest.grouping.crashes import Signatures, Sites, first_crashes, name_updates, too_late
from ingest.grouping.devices import (
    PUSHED,
    admit_sequence,
    apply_inventories,
    apply_updates,
    refresh,
    rounds,
    set_update,
    slot_of,
)
from ingest.grouping.fleet import Fleet, FleetFullError, Rows
from ingest.outcome import Outcome
from ingest.windows import FirstCrash

PUSHES_MAX = 4096

Seen = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]


@dataclass(slots=True)
class CrashItem:
    """A crash batch with its columns."""

    columns: Columns
    reports: list[Bsod]


@dataclass(slots=True)
class Memory:
    """What a partition keeps beside rows and dictionaries.

    Attributes:
        watermark_ms: of the last step.
        silence_from_s: minutes before this one are not judged for silence: Cordon was blind then.
        pushes: pushed devices that are due later: (from seconds, update, keys).
        sites: when each site last had a scored crash.
    """

    watermark_ms: int = 0
    silence_from_s: int = 0
    pushes: list[tuple[int, int, list[int]]] = field(default_factory=list)
    sites: Sites = field(default_factory=Sites)


class Population:
    """The devices of one partition.

    Attributes:
        rows_seen_ms: while catching up, the watermark that each row's chunk has seen; None otherwise.
        outcomes: reports by outcome since last taken.
    """

    def __init__(self, devices_max: int) -> None:
        """Make an empty population of at most `devices_max` devices."""
        self.words = Dictionaries()
        self.fleet = Fleet(devices_max)
        self.cohorts = Cohorts(self.fleet, self.words, Cells(self.words))
        self.memory = Memory()
        self.outcomes: Counter[Outcome] = Counter()
        self.rows_seen_ms: Seen | None = None
        self._signatures = Signatures()

    def _kept(self) -> npt.NDArray[np.bool_]:
        kept = np.zeros(UPDATES_MAX, bool)
        for watched in self.cohorts.watched.values():
            kept[watched.product] = True
        return kept

    def apply_notices(self, notices: list[RolloutNotice], watermark_ms: int) -> None:
        """Watch what the notices name, and remember the devices they say will be pushed to."""
        for notice in notices:
            self.cohorts.watch(notice, watermark_ms)
            update = self.words.update_number(notice.vendor, notice.product, notice.version)
            if notice.pushed and update:
                keys = [int(key) for key in keys_of(notice.pushed)]
                self.memory.pushes.append((notice.pushed_from_ms // 1000, update, keys))

    def apply_due_pushes(self, watermark_ms: int) -> None:
        """Expose the devices whose declared push is due by the watermark; they need not have said a word."""
        due = [push for push in self.memory.pushes if push[0] <= watermark_ms // 1000]
        if not due:
            return
        self.memory.pushes = [push for push in self.memory.pushes if push[0] > watermark_ms // 1000]
        for from_s, update, listed in due:
            keys = np.unique(np.array(listed, np.uint64))
            numbers = self._rows_for(keys)
            numbers = self._unseen(numbers[numbers >= 0], watermark_ms)
            before = self.fleet.take(numbers)
            after = before.copy()
            every = np.full(len(after), update, np.uint16)
            slot = slot_of(after, self.words.product_of[every], self.words.product_of, self._kept())
            set_update(after, slot, every, np.full(len(after), from_s, np.uint32), PUSHED)
            self._put(numbers, before, after)

    def _rows_for(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the rows of the keys, adding unknown devices in order of first sight; -1 where the fleet is full."""
        numbers = self.fleet.find(keys)
        missing = np.flatnonzero(numbers < 0)
        if len(missing):
            _, first = np.unique(keys[missing], return_index=True)
            fresh = keys[missing[np.sort(first)]]
            try:
                self.fleet.add(fresh)
            except FleetFullError:
                return numbers
            numbers[missing] = self.fleet.find(keys[missing])
        return numbers

    def _unseen(self, numbers: npt.NDArray[np.int64], watermark_ms: int) -> npt.NDArray[np.int64]:
        """Leave out rows whose chunk was written after this step: they have seen it."""
        if self.rows_seen_ms is None:
            return numbers
        return numbers[self.rows_seen_ms(numbers) < watermark_ms]

    def _put(self, numbers: npt.NDArray[np.int64], before: Rows, after: Rows) -> None:
        self.fleet.put(numbers, after)
        if self.rows_seen_ms is None:
            self.cohorts.exchange(before, after)

    def _usable(self, columns: Columns, watermark_ms: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the places of a batch that have a row which has not seen this step, and those rows."""
        numbers = self._rows_for(columns.key)
        usable = numbers >= 0
        self.outcomes[Outcome.FLEET_FULL] += int(len(usable) - usable.sum())
        if self.rows_seen_ms is not None:
            usable[usable] = self.rows_seen_ms(numbers[usable]) < watermark_ms
        places = np.flatnonzero(usable)
        return places, numbers[places]

    def apply_activity(self, columns: Columns, watermark_ms: int) -> None:
        """Apply offered, installed and check-in reports, in order."""
        places, numbers = self._usable(columns, watermark_ms)
        if len(places) == 0:
            return
        kept = self._kept()
        product_of = self.words.product_of
        for turn in rounds(numbers):
            part, rows_at = columns.take(places[turn]), numbers[turn]
            before = self.fleet.take(rows_at)
            after = before.copy()
            fresh = admit_sequence(after, part.seq)
            self.outcomes[Outcome.DUPLICATE] += int(len(fresh) - fresh.sum())
            if not fresh.all():
                part, rows_at, before, after = part.take(fresh), rows_at[fresh], before[fresh], after[fresh]
            apply_updates(after, part, product_of, kept)
            apply_inventories(after, part, self.words.inventories, product_of, kept)
            refresh(after, part, boots=True)
            self.outcomes[Outcome.ACCEPTED] += len(part)
            self._put(rows_at, before, after)

    def apply_crashes(self, item: CrashItem, watermark_ms: int) -> dict[str, list[FirstCrash]]:
        """Apply crash reports, in order, and return the first crashes of each watched rollout among them."""
        places, numbers = self._usable(item.columns, watermark_ms)
        found: dict[str, list[FirstCrash]] = {}
        if len(places) == 0:
            return found
        for turn in rounds(numbers):
            picked = places[turn]
            for name, rows in self._crash_round(item, picked, numbers[turn], watermark_ms).items():
                found.setdefault(name, []).extend(rows)
        return found

    def _crash_round(
        self, item: CrashItem, picked: npt.NDArray[np.int64], rows_at: npt.NDArray[np.int64], watermark_ms: int
    ) -> dict[str, list[FirstCrash]]:
        part = item.columns.take(picked)
        before = self.fleet.take(rows_at)
        after = before.copy()
        fresh = admit_sequence(after, part.seq)
        self.outcomes[Outcome.DUPLICATE] += int(len(fresh) - fresh.sum())
        part, rows_at, before, after = part.take(fresh), rows_at[fresh], before[fresh], after[fresh]
        reports = [item.reports[place] for place in picked[fresh].tolist()]
        if not reports:
            return {}
        signed = [self._signatures.of(report) for report in reports]
        late = too_late(part.at, watermark_ms)
        self.outcomes[Outcome.TOO_LATE] += int(late.sum())
        self.outcomes[Outcome.ACCEPTED] += int(len(late) - late.sum())
        counted = np.flatnonzero(~late & ~np.array([one.deliberate for one in signed]))
        name_updates(after, reports, self.words, self._kept())
        found: dict[str, list[FirstCrash]] = {}
        if len(counted) and self.rows_seen_ms is None:
            some = [reports[place] for place in counted.tolist()]
            scored = [
                self.memory.sites.scored(report.tenant, report.site, at)
                for report, at in zip(some, part.at[counted].tolist(), strict=True)
            ]
            found = first_crashes(
                before[counted], after[counted], part.take(counted), some,
                [signed[place] for place in counted.tolist()], scored, self.cohorts, self.words,
            )  # fmt: skip
        crashed = after["crashed"]
        crashed[counted] = np.maximum(crashed[counted], part.at[counted])
        refresh(after, part, boots=False)
        self._put(rows_at, before, after)
        return found
