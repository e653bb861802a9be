"""One rollout's counts at risk: what each device partition last said, their sum over live partitions, and its history.

Every partition's word is absolute and replaces the one before. A partition whose chain has a gap gives no evidence for
the rollout until it names every cell again: counts that missed a step may understate the exposed share, and an
understated share makes false kills.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.exposure import Counts, ExposureBound, ring_of, upper_bound
from detectors.history import CELLS_MAX, COUNT_MAX, MINUTES_KEPT_MS, CountHistory, HistoryState
from ingest.windows import CohortWindow

Floats = npt.NDArray[np.float64]


class Place(NamedTuple):
    """Where and when a crash is looked up: its cell's column, its event time, and its step's interval."""

    column: int
    at_ms: int
    since_ms: int
    watermark_ms: int


class CohortCountsState(msgspec.Struct, kw_only=True):
    """What `CohortCounts.snapshot` gives; rows are (column, group, exposed, control)."""

    cells: list[str]
    rows: list[list[tuple[int, int, int, int]]]
    live: list[bool]
    synced: list[bool]
    crash_totals: list[int]
    exposed_totals: list[int]
    pending: list[int]
    known: list[int]
    control: list[int]
    history: HistoryState


class CohortCounts:
    """Counts at risk by cell, for one rollout."""

    def __init__(self, live: Sequence[bool], synced: Sequence[bool]) -> None:
        """Begin empty.

        Args:
            live: per device partition, whether the merge counts it now.
            synced: per device partition, whether its chain of steps is whole since before the rollout began.
        """
        partitions = len(live)
        self.cells: list[str] = []
        self.live = list(live)
        self.synced = list(synced)
        self.known: Counts = np.zeros(0, dtype=np.int64)
        self.control: Counts = np.zeros(0, dtype=np.int64)
        self.pending = [0] * partitions
        self._columns: dict[str, int] = {}
        self._rings: list[str] = []
        self._ring_of: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._rows: list[dict[tuple[int, int], tuple[int, int]]] = [{} for _ in range(partitions)]
        self._crash_totals = [0] * partitions
        self._exposed_totals = [0] * partitions
        self._history = CountHistory()

    @property
    def exposed_total(self) -> int:
        """Devices exposed now over live partitions, at risk or not."""
        return sum(total for total, live in zip(self._exposed_totals, self.live, strict=True) if live)

    def column(self, cell: str) -> int | None:
        """Return the cell's column, made on first sight; None beyond the most cells that are compared."""
        found = self._columns.get(cell)
        if found is None and len(self.cells) < CELLS_MAX:
            found = self._columns[cell] = len(self.cells)
            self.cells.append(cell)
            self.known = np.append(self.known, 0)
            self.control = np.append(self.control, 0)
            self._note_ring(ring_of(cell))
        return found

    def _note_ring(self, ring: str) -> None:
        if ring not in self._rings:
            self._rings.append(ring)
        self._ring_of = np.append(self._ring_of, self._rings.index(ring))

    def _reached(self, bound: ExposureBound, at_ms: int) -> Floats:
        reached: Floats = bound.reach_of(self._rings, at_ms)[self._ring_of]
        return reached

    def lose(self, partition: int) -> None:
        """Note that a step of the partition was lost: no evidence from it until it names every cell again."""
        self.synced[partition] = False

    def set_live(self, partition: int, live: bool, at_ms: int) -> None:
        """Count a partition in, or leave it out of the sums."""
        if self.live[partition] is live:
            return
        before = self.known.copy(), self.control.copy()
        self.live[partition] = live
        sign = 1 if live else -1
        for (column, _), (exposed, control) in self._rows[partition].items():
            self.known[column] += sign * exposed
            self.control[column] += sign * control
        self._history.state(at_ms, before, (self.known, self.control))

    def state(self, at_ms: int, windows: Sequence[tuple[int, CohortWindow]]) -> None:
        """Replace what partitions said by what they say by `at_ms`: (partition, window) pairs of one merged step.

        Raises:
            ValueError: a count is negative or larger than any fleet.
        """
        before = self.known.copy(), self.control.copy()
        changed = False
        for partition, window in windows:
            changed |= bool(window.at_risk) or window.full
            self._state_one(partition, window)
        if changed:
            grown = len(self.known) - len(before[0])
            padded = np.pad(before[0], (0, grown)), np.pad(before[1], (0, grown))
            self._history.state(at_ms, padded, (self.known, self.control))

    def _state_one(self, partition: int, window: CohortWindow) -> None:
        rows = self._rows[partition]
        if window.full:
            self._drop(partition, list(rows))
            self.synced[partition] = True
            self._crash_totals[partition] = window.crash_total - len(window.crashes)
        self._crash_totals[partition] += len(window.crashes)
        if self._crash_totals[partition] != window.crash_total:
            self.synced[partition] = False
            self._crash_totals[partition] = window.crash_total
        self._exposed_totals[partition] = window.exposed_total
        self.pending[partition] = window.pending
        sign = 1 if self.live[partition] else 0
        for row in window.at_risk:
            column = self.column(row.cell)
            if column is None:
                continue
            old = rows.get((column, row.group), (0, 0))
            new = row.exposed, row.control
            if not (0 <= row.exposed <= COUNT_MAX and 0 <= row.control <= COUNT_MAX):
                raise ValueError(f"partition {partition} says {new} devices of {row.cell}: no such counts can be")
            self.known[column] += sign * (new[0] - old[0])
            self.control[column] += sign * (new[1] - old[1])
            if new == (0, 0):
                rows.pop((column, row.group), None)
            else:
                rows[column, row.group] = new

    def _drop(self, partition: int, keys: Sequence[tuple[int, int]]) -> None:
        sign = 1 if self.live[partition] else 0
        for key in keys:
            exposed, control = self._rows[partition].pop(key)
            self.known[key[0]] -= sign * exposed
            self.control[key[0]] -= sign * control

    def exposed_upper(self, bound: ExposureBound, at_ms: int) -> int:
        """Return the most devices at risk that may be exposed now, over all cells."""
        return int(upper_bound(self.known, self.control, self._reached(bound, at_ms)).sum())

    @staticmethod
    def too_old(at_ms: int, now_ms: int) -> bool:
        """Tell whether counts of that time are no longer kept."""
        return now_ms - at_ms > MINUTES_KEPT_MS

    def shares(
        self, places: Sequence[Place], exposed: npt.NDArray[np.bool_], bound: ExposureBound, now_ms: int
    ) -> tuple[Floats, Floats]:
        """Return the exposed share at risk at each crash: its upper bound and what was known of it, shapes (n,).

        A crash inside its step's interval is looked up over the whole interval, since the step does not say when in it
        the counts changed; an older one in the second or minute of its event time. The device that crashed counts as
        at risk in its arm.
        """
        upper: Floats = np.empty(len(places))
        lower: Floats = np.empty(len(places))
        by_span: dict[tuple[int, int], list[int]] = {}
        for index, place in enumerate(places):
            if place.at_ms > place.since_ms:
                span = place.since_ms, place.watermark_ms
            else:
                grain = CountHistory.grain_ms(place.at_ms, now_ms)
                begin = place.at_ms // grain * grain
                span = begin, begin + grain
            by_span.setdefault(span, []).append(index)
        for (from_ms, to_ms), indices in by_span.items():
            chosen = np.array(indices, dtype=np.int64)
            columns = np.array([places[i].column for i in indices], dtype=np.int64)
            known, control = self._history.envelope(from_ms, to_ms, columns)
            reached = self._reached(bound, to_ms)[columns]
            most = upper_bound(known, control, reached)
            x = exposed[chosen]
            upper[chosen] = _share(most + x, np.maximum(known + control - most, ~x))
            lower[chosen] = _share(np.maximum(known, x), np.maximum(control, ~x))
        return upper, lower

    def snapshot(self) -> CohortCountsState:
        """Return the state; `restore` of it goes on alike."""
        return CohortCountsState(
            cells=self.cells,
            rows=[[(*key, *value) for key, value in rows.items()] for rows in self._rows],
            live=self.live,
            synced=self.synced,
            crash_totals=self._crash_totals,
            exposed_totals=self._exposed_totals,
            pending=self.pending,
            known=self.known.tolist(),
            control=self.control.tolist(),
            history=self._history.snapshot(),
        )

    @classmethod
    def restore(cls, state: CohortCountsState) -> "CohortCounts":
        """Build the counts that `state` was taken from."""
        counts = cls(state.live, state.synced)
        counts.cells = state.cells
        counts._columns = {cell: column for column, cell in enumerate(state.cells)}
        for cell in state.cells:
            counts._note_ring(ring_of(cell))
        counts._rows = [{(r[0], r[1]): (r[2], r[3]) for r in rows} for rows in state.rows]
        counts._crash_totals, counts._exposed_totals = state.crash_totals, state.exposed_totals
        counts.pending = state.pending
        counts.known = np.array(state.known, dtype=np.int64)
        counts.control = np.array(state.control, dtype=np.int64)
        counts._history = CountHistory.restore(state.history)
        return counts


def _share(exposed: Counts, control: Counts) -> Floats:
    share: Floats = exposed / np.maximum(exposed + control, 1)
    return share
