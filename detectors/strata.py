"""Strata of devices last heard in one minute, gathered from all device partitions until their time is up.

Each partition says its part of a stratum twice: its sizes at the end of the minute, and the silent ones when the
overdue time has passed. A minute is scored once, for all its cells together, when every live partition has had the
time to say it; words that come later are dropped and counted. A tenant group that goes quiet by itself, such as an
office at half past five or a liar's devices, is taken out of its minute; one in which everybody does is not scored.
"""

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.exposure import Counts, ExposureBound, ring_of
from detectors.silence import Stratum
from ingest.windows import HeardMinute

_MINUTE_MS: Final = 60_000
# Partitions pass the overdue time at their own ticks: a few of them apart.
_GRACE_MS: Final = 5_000
# A minute's cell of fewer devices is put together with others.
_SPARSE: Final = 8
_RECENCY: Final = 4
# Rows waiting, over all minutes: some hundred cells of 8 partitions for a quarter of an hour; more are dropped.
_ROWS_MAX: Final = 200_000
# Numbers of a row: exposed and control devices, and the silent of each.
_WIDTH: Final = 4
_NAMES_MAX: Final = 4096
_Key = tuple[int, str, int]


class DueMinute(NamedTuple):
    """One minute's strata, ready to be scored.

    Attributes:
        strata: one for each cell, with the upper bound of the exposed.
        unbounded: cells whose silent controls outnumber what the bound leaves as controls: their arms are not known.
        quiet: tenant groups that were taken out because their controls went quiet.
        frozen: the controls of the others went quiet, too, whichever of them one leaves out: the minute is no evidence.
        groups: tenant groups with a silent exposed device, of those that were not taken out.
    """

    minute_ms: int
    strata: list[Stratum]
    unbounded: int
    quiet: tuple[int, ...]
    frozen: bool
    groups: set[int]


class Freezing(NamedTuple):
    """When controls count as gone quiet: more than this share of at least so many."""

    share_limit: float
    control_least: int

    def quiet(self, control: int, silent_control: int) -> bool:
        """Tell whether so many silent ones of so many controls mean that something hit them all."""
        return control >= self.control_least and silent_control > self.share_limit * control


_FREEZING: Final = Freezing(0.1, 100)


class StrataState(msgspec.Struct, kw_only=True):
    """What `Strata.snapshot` gives; rows are (minute, partition, cell, group, exposed, control, silent of each)."""

    scored_to_ms: int
    dropped: int
    rows: list[tuple[int, int, str, int, int, int, int, int]]


class _Rows:
    """Rows of one minute by partition, cell and tenant group: plain numbers in one array, for there are very many.

    As a list each, those of ten thousand rollouts kept the garbage collector busy for seconds at a time.
    """

    def __init__(self) -> None:
        self._places: dict[_Key, int] = {}
        self._numbers = array("q")

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: _Key) -> bool:
        return key in self._places

    def add(self, key: _Key, at: int, first: int, second: int) -> None:
        """Add two numbers to a row, at its beginning or, with `at` 2, behind its sizes."""
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self._numbers)
            self._numbers.extend((0, 0, 0, 0))
        self._numbers[place + at] += first
        self._numbers[place + at + 1] += second

    def items(self) -> Iterator[tuple[_Key, list[int]]]:
        """Yield each row's four numbers by its key, in the order in which the keys were met."""
        for key, place in self._places.items():
            yield key, self._numbers[place : place + _WIDTH].tolist()


class Strata:
    """Gathers one rollout's strata."""

    def __init__(self, silence_seconds: float) -> None:
        self._silence_ms = int(silence_seconds * 1000)
        self._minutes: dict[int, _Rows] = {}
        # One text for each cell, whichever record named it again.
        self._names: dict[str, str] = {}
        self._rows = 0
        self._scored_to_ms = 0
        self.dropped = 0

    def add(self, partition: int, watermark_ms: int, rows: Sequence[HeardMinute]) -> None:
        """Take what a partition says in a step that ends at `watermark_ms`: each word of a stratum comes once."""
        for row in rows:
            # Sizes are said when the minute ends, the silent when its overdue time has passed.
            overdue = watermark_ms >= row.minute_ms + max(self._silence_ms, _MINUTE_MS + 1)
            minute = self._minutes.get(row.minute_ms)
            key = partition, self._named(row.cell), row.group
            known = minute is not None and key in minute
            if row.minute_ms <= self._scored_to_ms or (not known and self._rows >= _ROWS_MAX):
                self.dropped += 1
                continue
            if minute is None:
                minute = self._minutes[row.minute_ms] = _Rows()
            self._rows += not known
            if overdue:
                minute.add(key, 2, row.silent_exposed, row.silent_control)
            else:
                minute.add(key, 0, row.exposed, row.control)

    def _named(self, cell: str) -> str:
        if len(self._names) >= _NAMES_MAX:
            self._names.clear()
        return self._names.setdefault(cell, cell)

    def next_due_ms(self) -> int | None:
        """Return the event time at which the next minute can be scored; None without one."""
        return min(self._minutes) + self._due_after_ms if self._minutes else None

    @property
    def _due_after_ms(self) -> int:
        return _MINUTE_MS + self._silence_ms + _GRACE_MS

    def due(self, at_ms: int, bound: ExposureBound, freezing: Freezing = _FREEZING) -> list[DueMinute]:
        """Take out the minutes whose time is up by `at_ms`, oldest first, each with its strata by cell."""
        ready = sorted(minute for minute in self._minutes if minute + self._due_after_ms <= at_ms)
        return [self._close(minute, bound, freezing) for minute in ready]

    def _close(self, minute_ms: int, bound: ExposureBound, freezing: Freezing) -> DueMinute:
        rows = self._minutes.pop(minute_ms)
        self._rows -= len(rows)
        self._scored_to_ms = max(self._scored_to_ms, minute_ms)
        # A partition without a silent device said no second word; neither did one that was blind. Given how many of
        # each partition are silent, leaving out those with none changes nothing.
        spoke = {partition for (partition, _, _), sums in rows.items() if sums[2] or sums[3]}
        cells: dict[str, dict[int, Counts]] = {}
        for (partition, cell, group), told in rows.items():
            # Without sizes, the minute ended before the rollout was watched: there is nothing to compare.
            if partition in spoke and (told[0] or told[1]):
                sums = cells.setdefault(cell, {}).setdefault(group, np.zeros(4, dtype=np.int64))
                sums += told
        controls = _controls(cells)
        quiet = tuple(sorted(group for group, (all_of, silent) in controls.items() if freezing.quiet(all_of, silent)))
        for groups in cells.values():
            for group in quiet:
                groups.pop(group, None)
        strata, unbounded = _strata(_collapsed(cells), bound, minute_ms + _MINUTE_MS)
        silent = {group for groups in cells.values() for group, counts in groups.items() if counts[2]}
        return DueMinute(minute_ms, strata, unbounded, quiet, _all_quiet(controls, quiet, freezing), silent)

    def snapshot(self) -> StrataState:
        """Return the state; `restore` of it goes on alike."""
        return StrataState(
            scored_to_ms=self._scored_to_ms,
            dropped=self.dropped,
            rows=[
                (minute, partition, cell, group, sums[0], sums[1], sums[2], sums[3])
                for minute, rows in self._minutes.items()
                for (partition, cell, group), sums in rows.items()
            ],
        )

    @classmethod
    def restore(cls, state: StrataState, silence_seconds: float) -> "Strata":
        """Build what `state` was taken from."""
        strata = cls(silence_seconds)
        strata._scored_to_ms, strata.dropped = state.scored_to_ms, state.dropped
        for minute, partition, cell, group, exposed, control, *silent in state.rows:
            rows = strata._minutes.setdefault(minute, _Rows())
            key = partition, strata._named(cell), group
            rows.add(key, 0, exposed, control)
            rows.add(key, 2, *silent)
        strata._rows = len(state.rows)
        return strata


def _controls(cells: dict[str, dict[int, Counts]]) -> dict[int, tuple[int, int]]:
    """Return controls and silent controls by tenant group, over all cells."""
    sums: dict[int, tuple[int, int]] = {}
    for groups in cells.values():
        for group, counts in groups.items():
            before = sums.get(group, (0, 0))
            sums[group] = before[0] + int(counts[1]), before[1] + int(counts[3])
    return sums


def _all_quiet(controls: dict[int, tuple[int, int]], quiet: tuple[int, ...], freezing: Freezing) -> bool:
    """Tell whether everybody else went quiet too: no single group's devices may freeze a minute."""
    left = [both for group, both in controls.items() if group not in quiet]
    if not left:
        return bool(quiet)
    total, silent = sum(one for one, _ in left), sum(one for _, one in left)
    # With one group there is nobody whose word could be held against it.
    without = [(0, 0)] if len(left) == 1 else left
    return all(freezing.quiet(total - one, silent - gone) for one, gone in without)


def _collapsed(cells: dict[str, dict[int, Counts]]) -> dict[str, dict[int, Counts]]:
    """Put cells of few devices together by form factor, ring and rivals.

    In a small fleet hardly two devices of one cell were heard in the same minute, and a stratum of one tells nothing.
    Which cells are put together goes by their sizes alone, never by who fell silent.
    """
    found: dict[str, dict[int, Counts]] = {}
    for cell, groups in cells.items():
        size = sum(int(counts[0] + counts[1]) for counts in groups.values())
        fields = cell.split("|")
        sparse = size < _SPARSE and len(fields) > _RECENCY
        name = "|".join(("*", *fields[1:3], "*", "*", *fields[_RECENCY + 1 :])) if sparse else cell
        into = found.setdefault(name, {})
        for group, counts in groups.items():
            into[group] = into[group] + counts if group in into else counts
    return found


def _strata(cells: dict[str, dict[int, Counts]], bound: ExposureBound, at_ms: int) -> tuple[list[Stratum], int]:
    """Return the strata of cells whose arms are known, and how many cells' are not."""
    names = sorted(name for name, groups in cells.items() if groups)
    reached = bound.reach_of([ring_of(name) for name in names], at_ms)
    strata, unbounded = [], 0
    for name, part in zip(names, reached.tolist(), strict=True):
        groups = cells[name]
        total: Counts = np.sum(list(groups.values()), axis=0)
        whole = _bounded(total, part, bound.share_least)
        if whole is None:
            unbounded += 1
            continue
        # Where the arms are not known without a group, its row takes nothing from this stratum.
        without = {
            group: _bounded(total - counts, part, bound.share_least) or (0, 0, 0, 0)
            for group, counts in sorted(groups.items())
        }
        strata.append(Stratum(*whole, without=without))
    return strata, unbounded


def _bounded(counts: Counts, part: float, least: float) -> tuple[int, int, int, int] | None:
    """Return the counts with the upper bound of the exposed; None where silent controls outnumber what it leaves.

    As for crashes, the least share counts only where an exposed device is silent: elsewhere it would weigh controls.
    """
    exposed, control, silent_exposed, silent_control = (int(count) for count in counts)
    part = max(part, least) if silent_exposed else part
    most = max(exposed, math.ceil((exposed + control) * part - 1e-9))
    left = exposed + control - most
    if silent_control > left or silent_exposed > exposed:
        return None
    return most, left, silent_exposed, silent_control
