"""What reports do to one partition's devices: the fleet's rows, the count tables, and first crashes.

`Population` holds a partition's devices and everything derived from them; `Partition` beside it decides when. While
catching up after a restart, rows in chunks written later than a step have seen it already and are left alone, and what
was under watch and pushed at that step is taken from the memory, which knows it.
"""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from ingest.events import RolloutNotice
from ingest.grouping.cells import Cells
from ingest.grouping.cohorts import Cohorts
from ingest.grouping.columns import UPDATES_MAX, Bsod, Columns, Dictionaries, notice_keys
from ingest.grouping.crashes import Signatures, Sites, first_crashes, name_updates, too_late
from ingest.grouping.devices import (
    PUSHED,
    Mask,
    admit_sequence,
    apply_inventories,
    apply_updates,
    refresh,
    rounds,
    set_update,
    slot_of,
)
from ingest.grouping.fleet import Fleet, Rows
from ingest.grouping.owners import Owners
from ingest.outcome import Outcome
from ingest.windows import FirstCrash

PUSHES_MAX = 4096
KEPT_MAX = 1024

RowNumbers = npt.NDArray[np.int64]


@dataclass(slots=True)
class CrashItem:
    """Crash reports with their columns; no event time lies after the gateway had it.

    Attributes:
        behind: which of them a gateway brought that the watermark had passed: counted, but no evidence.
    """

    columns: Columns
    reports: list[Bsod]
    behind: npt.NDArray[np.bool_]


class Push(msgspec.Struct, array_like=True):
    """Devices that a rollout system declared as pushed to.

    Attributes:
        from_s: from when they count as exposed, seconds since the epoch.
        update: number of the update.
        keys: the devices, sorted and distinct, 8 bytes each.
        applied_ms: watermark of the step that exposed them; 0 while not yet due. It is remembered until every chunk
            has seen that step, for the notice lies further back than reading starts again.
    """

    from_s: int
    update: int
    keys: bytes
    applied_ms: int = 0


@dataclass(slots=True)
class Memory:
    """What a partition keeps beside rows and dictionaries.

    Attributes:
        watermark_ms: of the last step.
        silence_from_s: minutes before this one are not judged for silence: Cordon was blind then.
        pushes: declared pushes that are not yet due, or not yet in every chunk.
        pushes_changed: how often they changed.
        kept: products under watch, by number, with the watermark of the first step for which they were; rising.
        sites: when each site last had a scored crash.
    """

    watermark_ms: int = 0
    silence_from_s: int = 0
    pushes: list[Push] = field(default_factory=list)
    pushes_changed: int = 0
    kept: list[tuple[int, list[int]]] = field(default_factory=list)
    sites: Sites = field(default_factory=Sites)

    def forget(self, seen_ms: int) -> None:
        """Drop what only steps up to `seen_ms` need, a watermark that every chunk has seen."""
        pushes = [push for push in self.pushes if not 0 < push.applied_ms <= seen_ms]
        if len(pushes) < len(self.pushes):
            self.pushes, self.pushes_changed = pushes, self.pushes_changed + 1
        passed = bisect_right(self.kept, seen_ms, key=lambda one: one[0]) - 1
        if passed > 0:
            self.kept = self.kept[passed:]


class CatchingUp:
    """What has been seen already, by chunks written later than the step that is read again."""

    def __init__(self, seen_ms: npt.NDArray[np.int64], rows_per_chunk: int) -> None:
        """Take the watermark of each chunk; the last one stands for all chunks beyond."""
        self._seen_ms = seen_ms
        self._rows_per_chunk = rows_per_chunk

    def unseen(self, numbers: RowNumbers, watermark_ms: int) -> Mask:
        """Tell which rows have not seen the step that ends at `watermark_ms`."""
        chunks = np.minimum(numbers // self._rows_per_chunk, len(self._seen_ms) - 1)
        unseen: Mask = self._seen_ms[chunks] < watermark_ms
        return unseen


class Population:
    """The devices of one partition.

    Attributes:
        catching_up: while catching up, what was seen already; None otherwise.
        owners: which tenant group is one tenant's alone; not kept while catching up.
        outcomes: reports by outcome since last taken.
    """

    def __init__(self, devices_max: int) -> None:
        """Make an empty population of at most `devices_max` devices."""
        self.words = Dictionaries()
        self.fleet = Fleet(devices_max)
        self.cohorts = Cohorts(self.fleet, self.words, Cells(self.words))
        self.owners = Owners(self.words)
        self.memory = Memory()
        self.outcomes: Counter[Outcome] = Counter()
        self.catching_up: CatchingUp | None = None
        self._signatures = Signatures()
        self._kept: tuple[list[int], Mask] = ([], np.zeros(UPDATES_MAX, bool))

    def _kept_at(self, watermark_ms: int) -> Mask:
        """Return, by product number, whether a rollout of it is under watch in the step that ends at `watermark_ms`."""
        found = bisect_right(self.memory.kept, watermark_ms, key=lambda one: one[0]) - 1
        products = self.memory.kept[found][1] if found >= 0 else []
        if products != self._kept[0]:
            kept = np.zeros(UPDATES_MAX, bool)
            kept[products] = True
            self._kept = (products, kept)
        return self._kept[1]

    def apply_notices(self, notices: list[RolloutNotice], watermark_ms: int) -> None:
        """Watch what the notices name, and remember the devices they say will be pushed to."""
        if self.catching_up is not None or not notices:
            return
        memory = self.memory
        for notice in notices:
            self.cohorts.watch(notice, watermark_ms)
            update = self.words.update_number(notice.vendor, notice.product, notice.version)
            if notice.pushed and update:
                keys = notice_keys(notice).tobytes()
                memory.pushes.append(Push(notice.pushed_from_ms // 1000, update, keys))
                memory.pushes_changed += 1
        waiting = sorted((push for push in memory.pushes if not push.applied_ms), key=lambda push: push.from_s)
        for push in waiting[: max(0, len(waiting) - PUSHES_MAX)]:
            # Overstating who is exposed costs a few crashes more to decide; forgetting them would forge evidence.
            push.from_s = min(push.from_s, watermark_ms // 1000)
        products = sorted({watched.product for watched in self.cohorts.watched.values()})
        if not memory.kept or memory.kept[-1][1] != products:
            memory.kept.append((watermark_ms, products))
            del memory.kept[:-KEPT_MAX]

    def apply_due_pushes(self, watermark_ms: int) -> None:
        """Expose the devices whose declared push is due by the watermark; they need not have said a word."""
        for push in self.memory.pushes:
            if self.catching_up is not None:
                if push.applied_ms == watermark_ms:
                    self._push(push, watermark_ms)
            elif not push.applied_ms and push.from_s <= watermark_ms // 1000:
                push.applied_ms = watermark_ms
                self.memory.pushes_changed += 1
                self._push(push, watermark_ms)

    def _push(self, push: Push, watermark_ms: int) -> None:
        numbers = self._rows_for(np.frombuffer(push.keys, np.uint64))
        usable = numbers >= 0
        if self.catching_up is not None:
            usable[usable] = self.catching_up.unseen(numbers[usable], watermark_ms)
        numbers = numbers[usable]
        before = self.fleet.take(numbers)
        after = before.copy()
        every = np.full(len(after), push.update, np.uint16)
        slot = slot_of(after, self.words.product_of[every], self.words.product_of, self._kept_at(watermark_ms))
        since = np.full(len(after), push.from_s, np.uint32)
        set_update(after, slot, every, since, PUSHED, np.zeros(len(after), bool))
        self._put(numbers, before, after)

    def _rows_for(self, keys: npt.NDArray[np.uint64]) -> RowNumbers:
        """Return the rows of the keys, adding unknown devices in order of first sight; -1 where the fleet is full.

        As many as there is room for are added, so a full fleet is full whatever else is in a batch: a step that is read
        again adds the same ones.
        """
        numbers = self.fleet.find(keys)
        missing = np.flatnonzero(numbers < 0)
        if len(missing) and self.fleet.room:
            _, first = np.unique(keys[missing], return_index=True)
            fresh = keys[missing[np.sort(first)]][: self.fleet.room]
            self.fleet.add(fresh)
            numbers[missing] = self.fleet.find(keys[missing])
        return numbers

    def _put(self, numbers: RowNumbers, before: Rows, after: Rows) -> None:
        self.fleet.put(numbers, after)
        if self.catching_up is None:
            self.owners.meet(after["tenant"])
            self.cohorts.exchange(before, after)

    def _usable(self, columns: Columns, watermark_ms: int) -> tuple[RowNumbers, RowNumbers]:
        """Return the places of a batch that have a row which has not seen this step, and those rows."""
        numbers = self._rows_for(columns.key)
        usable = numbers >= 0
        full = len(usable) - int(usable.sum())
        if full:
            self.outcomes[Outcome.FLEET_FULL] += full
        if self.catching_up is not None:
            usable[usable] = self.catching_up.unseen(numbers[usable], watermark_ms)
        places = np.flatnonzero(usable)
        return places, numbers[places]

    def apply_activity(self, columns: Columns, watermark_ms: int) -> None:
        """Apply offered, installed and check-in reports, in order."""
        places, numbers = self._usable(columns, watermark_ms)
        if len(places) == 0:
            return
        kept = self._kept_at(watermark_ms)
        product_of = self.words.product_of
        turns = rounds(numbers)
        for turn in turns:
            whole = len(turn) == len(columns)
            part, rows_at = (columns, numbers) if whole else (columns.take(places[turn]), numbers[turn])
            before = self.fleet.take(rows_at)
            after = before.copy()
            fresh, newest = admit_sequence(after, part.seq, part.at)
            if not fresh.all():
                self.outcomes[Outcome.DUPLICATE] += len(fresh) - int(fresh.sum())
                part, rows_at, newest = part.take(fresh), rows_at[fresh], newest[fresh]
                before, after = before[fresh], after[fresh]
            apply_updates(after, part, newest, product_of, kept)
            apply_inventories(after, part, newest, product_of, kept)
            refresh(after, part, newest, boots=True)
            self.outcomes[Outcome.ACCEPTED] += len(part)
            self._put(rows_at, before, after)

    def apply_crashes(self, item: CrashItem, watermark_ms: int) -> dict[str, list[FirstCrash]]:
        """Apply crash reports, in order, and return the first crashes of each watched rollout among them."""
        places, numbers = self._usable(item.columns, watermark_ms)
        found: dict[str, list[FirstCrash]] = {}
        if len(places) == 0:
            return found
        for turn in rounds(numbers):
            for name, rows in self._crash_round(item, places[turn], numbers[turn], watermark_ms).items():
                found.setdefault(name, []).extend(rows)
        return found

    def _crash_round(
        self, item: CrashItem, picked: RowNumbers, rows_at: RowNumbers, watermark_ms: int
    ) -> dict[str, list[FirstCrash]]:
        part = item.columns.take(picked)
        before = self.fleet.take(rows_at)
        after = before.copy()
        fresh, newest = admit_sequence(after, part.seq, part.at)
        self.outcomes[Outcome.DUPLICATE] += len(fresh) - int(fresh.sum())
        part, rows_at, newest = part.take(fresh), rows_at[fresh], newest[fresh]
        before, after = before[fresh], after[fresh]
        reports = [item.reports[place] for place in picked[fresh].tolist()]
        behind = item.behind[picked[fresh]]
        if not reports:
            return {}
        signed = [self._signatures.of(report) for report in reports]
        late = too_late(part.at, watermark_ms)
        self.outcomes[Outcome.TOO_LATE] += int(late.sum())
        self.outcomes[Outcome.ACCEPTED] += int(len(late) - late.sum())
        counted = np.flatnonzero(~late & ~np.array([one.deliberate for one in signed]))
        kept = self._kept_at(watermark_ms)
        named = name_updates(after, part, reports, newest, self.cohorts, kept).take(counted)
        found: dict[str, list[FirstCrash]] = {}
        if len(counted) and self.catching_up is None:
            places = counted.tolist()
            found = first_crashes(
                before[counted], named, part.take(counted), [reports[place] for place in places],
                [signed[place] for place in places], behind[counted], self.cohorts, self.memory.sites,
            )  # fmt: skip
        crashed = after["crashed"]
        crashed[counted] = np.maximum(crashed[counted], part.at[counted])
        refresh(after, part, newest, boots=False)
        self._put(rows_at, before, after)
        return found
