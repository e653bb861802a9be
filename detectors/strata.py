"""Strata of devices last heard in one minute, gathered from all device partitions until their time is up.

Each partition says its part of a stratum twice: its sizes at the end of the minute, and the silent ones when the
overdue time has passed. A minute is scored once, for all its cells together, when every live partition has had the
time to say it; words that come later are dropped and counted.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from detectors.exposure import ExposureBound, ring_of
from detectors.silence import Stratum
from ingest.windows import HeardMinute

_MINUTE_MS: Final = 60_000
# Partitions pass the overdue time at their own ticks: a few of them apart.
_GRACE_MS: Final = 5_000
# Rows waiting, over all minutes: some hundred cells of 8 partitions for a quarter of an hour; more are dropped.
_ROWS_MAX: Final = 200_000


class DueMinute(NamedTuple):
    """One minute's strata, ready to be scored.

    Attributes:
        strata: one for each cell, with the upper bound of the exposed.
        unbounded: cells whose silent controls outnumber what the bound leaves as controls: their arms are not known.
        control: controls over all cells, as known.
        silent_control: silent ones among them.
        groups: tenant groups with a silent exposed device.
    """

    minute_ms: int
    strata: list[Stratum]
    unbounded: int
    control: int
    silent_control: int
    groups: set[int]


class StrataState(msgspec.Struct, kw_only=True):
    """What `Strata.snapshot` gives; rows are (minute, partition, cell, exposed, control, silent of each)."""

    scored_to_ms: int
    dropped: int
    rows: list[tuple[int, int, str, int, int, int, int]]
    groups: dict[int, list[int]]


class Strata:
    """Gathers one rollout's strata."""

    def __init__(self, silence_seconds: float) -> None:
        self._silence_ms = int(silence_seconds * 1000)
        self._minutes: dict[int, dict[tuple[int, str], list[int]]] = {}
        self._groups: dict[int, set[int]] = {}
        self._rows = 0
        self._scored_to_ms = 0
        self.dropped = 0

    def add(self, partition: int, watermark_ms: int, rows: Sequence[HeardMinute]) -> None:
        """Take what a partition says in a step that ends at `watermark_ms`: each word of a stratum comes once."""
        for row in rows:
            # Sizes are said when the minute ends, the silent when its overdue time has passed.
            overdue = watermark_ms >= row.minute_ms + max(self._silence_ms, _MINUTE_MS + 1)
            minute = self._minutes.setdefault(row.minute_ms, {})
            key = partition, row.cell
            if row.minute_ms <= self._scored_to_ms or (key not in minute and self._rows >= _ROWS_MAX):
                self.dropped += 1
                if not minute:
                    del self._minutes[row.minute_ms]
                continue
            if key not in minute:
                self._rows += 1
                minute[key] = [0, 0, 0, 0]
            sums = minute[key]
            if overdue:
                sums[2] += row.silent_exposed
                sums[3] += row.silent_control
                if row.silent_exposed:
                    self._groups.setdefault(row.minute_ms, set()).add(row.group)
            else:
                sums[0] += row.exposed
                sums[1] += row.control

    def next_due_ms(self) -> int | None:
        """Return the event time at which the next minute can be scored; None without one."""
        return min(self._minutes) + self._due_after_ms if self._minutes else None

    @property
    def _due_after_ms(self) -> int:
        return _MINUTE_MS + self._silence_ms + _GRACE_MS

    def due(self, at_ms: int, bound: ExposureBound) -> list[DueMinute]:
        """Take out the minutes whose time is up by `at_ms`, oldest first, each with its strata by cell."""
        ready = sorted(minute for minute in self._minutes if minute + self._due_after_ms <= at_ms)
        return [self._close(minute, bound) for minute in ready]

    def _close(self, minute_ms: int, bound: ExposureBound) -> DueMinute:
        rows = self._minutes.pop(minute_ms)
        groups = self._groups.pop(minute_ms, set())
        self._rows -= len(rows)
        self._scored_to_ms = max(self._scored_to_ms, minute_ms)
        # A partition without a silent device said no second word; neither did one that was blind. Given how many of
        # each partition are silent, leaving out those with none changes nothing.
        spoke = {partition for (partition, _), sums in rows.items() if sums[2] or sums[3]}
        cells: dict[str, list[int]] = {}
        for (partition, cell), told in rows.items():
            # Without sizes, the minute ended before the rollout was watched: there is nothing to compare.
            if partition in spoke and (told[0] or told[1]):
                sums = cells.setdefault(cell, [0, 0, 0, 0])
                for index, count in enumerate(told):
                    sums[index] += count
        names = sorted(cells)
        reached = bound.reach_of([ring_of(name) for name in names], minute_ms + _MINUTE_MS)
        strata, unbounded = [], 0
        for name, part in zip(names, reached.tolist(), strict=True):
            exposed, control, silent_exposed, silent_control = cells[name]
            most = max(exposed, math.ceil((exposed + control) * part - 1e-9))
            left = exposed + control - most
            if silent_control > left or silent_exposed > exposed:
                unbounded += 1
                continue
            strata.append(Stratum(most, left, silent_exposed, silent_control))
        control = sum(one[1] for one in cells.values())
        silent_control = sum(one[3] for one in cells.values())
        return DueMinute(minute_ms, strata, unbounded, control, silent_control, groups)

    def snapshot(self) -> StrataState:
        """Return the state; `restore` of it goes on alike."""
        return StrataState(
            scored_to_ms=self._scored_to_ms,
            dropped=self.dropped,
            rows=[
                (minute, partition, cell, sums[0], sums[1], sums[2], sums[3])
                for minute, rows in self._minutes.items()
                for (partition, cell), sums in rows.items()
            ],
            groups={minute: sorted(groups) for minute, groups in self._groups.items()},
        )

    @classmethod
    def restore(cls, state: StrataState, silence_seconds: float) -> "Strata":
        """Build what `state` was taken from."""
        strata = cls(silence_seconds)
        strata._scored_to_ms, strata.dropped = state.scored_to_ms, state.dropped
        for minute, partition, cell, *sums in state.rows:
            strata._minutes.setdefault(minute, {})[partition, cell] = sums
        strata._groups = {minute: set(groups) for minute, groups in state.groups.items()}
        strata._rows = len(state.rows)
        return strata
