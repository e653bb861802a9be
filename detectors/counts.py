"""One rollout's counts at risk: what each device partition last said, their sum over live partitions, and its history.

Every partition's word is absolute and replaces the one before. A partition whose chain has a gap gives no evidence for
the rollout until it names every cell again: counts that missed a step may understate the exposed share, and an
understated share makes false kills. Counts are kept by cell and tenant group, so that any group can be left out.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.cell_margins import CellMargins, base_of, rivals_of
from detectors.delay import corrected
from detectors.exposure import Counts, ExposureBound, ring_of, share_known, share_upper
from detectors.history import CELLS_MAX, COUNT_MAX, KEPT_MS, CountHistory, HistoryState
from detectors.margin_counts import MarginCounts, MarginCountsState
from detectors.tenants import GROUPS, NOBODY, ROWS
from ingest.windows import CohortWindow

Floats = npt.NDArray[np.float64]


class Place(NamedTuple):
    """Where and when a crash is looked up: its cell's column, its event time, its step's interval, and whose it is."""

    column: int
    at_ms: int
    since_ms: int
    watermark_ms: int
    group: int = 0
    margins: tuple[str, ...] = ()


class Shares(NamedTuple):
    """The exposed share at risk at each of n crashes.

    Attributes:
        upper: its upper bound, shape (n, 33): row j without the devices of tenant group j, the last with all.
        known: what was known of it, nobody left out, shape (n,).
        known_group: what was known of it among the devices of the crash's own tenant group, shape (n,).
        own: its upper bound among those, shape (n,).
        marginal: its upper bound in the cell without regard to rivals, nobody left out, shape (n,).
    """

    upper: Floats
    known: Floats
    known_group: Floats
    own: Floats
    marginal: Floats


class CohortCountsState(msgspec.Struct, kw_only=True):
    """What `CohortCounts.snapshot` gives; rows are (pair, exposed, control)."""

    cells: list[str]
    pairs: list[tuple[int, int]]
    rows: list[list[tuple[int, int, int]]]
    live: list[bool]
    synced: list[bool]
    crash_totals: list[int]
    exposed_totals: list[int]
    pending: list[int]
    history: HistoryState
    margins: MarginCountsState


class CohortCounts:
    """Counts at risk by cell and tenant group, for one rollout."""

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
        self.pending = [0] * partitions
        self.margins = MarginCounts(partitions)
        self.cell_margins = CellMargins()
        self._told = 0
        self._columns: dict[str, int] = {}
        self._bases: dict[str, list[int]] = {}
        self._split: dict[int, tuple[str, ...]] = {}
        self._rings: list[str] = []
        self._ring_of_cell: list[int] = []
        # A pair is a cell and a tenant group: what counts are kept by.
        self._pairs: dict[tuple[str, int], int] = {}
        self._pairs_of: list[list[int]] = []
        self._cell_of: Counts = np.zeros(0, dtype=np.int64)
        self._group_of: Counts = np.zeros(0, dtype=np.int64)
        self._known: Counts = np.zeros(0, dtype=np.int64)
        self._control: Counts = np.zeros(0, dtype=np.int64)
        # What each partition said last: exposed and control devices by pair.
        self._said: npt.NDArray[np.int32] = np.zeros((partitions, 2, 0), dtype=np.int32)
        self._crash_totals = [0] * partitions
        self._exposed_totals = [0] * partitions
        self._history = CountHistory()

    @property
    def exposed_total(self) -> int:
        """Devices exposed now over live partitions, at risk or not."""
        return sum(total for total, live in zip(self._exposed_totals, self.live, strict=True) if live)

    @property
    def known_total(self) -> int:
        """Devices at risk that are known to be exposed."""
        return int(self._known.sum())

    @property
    def control_total(self) -> int:
        """Devices at risk in the control arm, as known."""
        return int(self._control.sum())

    def at_risk(self, column: int) -> tuple[int, int]:
        """Return a cell's known exposed and control devices at risk."""
        pairs = self._pairs_of[column]
        return int(self._known[pairs].sum()), int(self._control[pairs].sum())

    def known_by_cell(self) -> Counts:
        """Return known exposed devices at risk by cell and tenant group: shape (cells, 32)."""
        table: Counts = np.zeros((len(self.cells), GROUPS), dtype=np.int64)
        table[self._cell_of, self._group_of] = self._known
        return table

    def control_by_cell(self) -> Counts:
        """Return control devices at risk by cell: shape (cells,)."""
        table: Counts = np.bincount(self._cell_of, weights=self._control, minlength=len(self.cells)).astype(np.int64)
        return table

    def column(self, cell: str) -> int | None:
        """Return the cell's column, made on first sight; None beyond the most cells that are compared."""
        found = self._columns.get(cell)
        if found is None and len(self.cells) < CELLS_MAX:
            found = self._columns[cell] = len(self.cells)
            self.cells.append(cell)
            self.cell_margins.add(cell)
            self._pairs_of.append([])
            self._bases.setdefault(base_of(cell), []).append(found)
            rivals = rivals_of(cell)
            if rivals:
                self._split[found] = rivals
            ring = ring_of(cell)
            if ring not in self._rings:
                self._rings.append(ring)
            self._ring_of_cell.append(self._rings.index(ring))
        return found

    def new_cells(self) -> list[str]:
        """Return the cells met since this was asked last."""
        found, self._told = self.cells[self._told :], len(self.cells)
        return found

    def _pair(self, cell: str, group: int) -> int | None:
        found = self._pairs.get((cell, group))
        if found is None:
            column = self.column(cell)
            if column is None:
                return None
            # The text of the list of cells is the one that is kept, whichever record named the cell again.
            found = self._pairs[self.cells[column], group] = len(self._pairs)
            self._pairs_of[column].append(found)
        return found

    def _reserve(self) -> None:
        """Make room for the pairs met since."""
        grown = len(self._pairs) - len(self._known)
        if not grown:
            return
        fresh = list(self._pairs)[-grown:]
        self._cell_of = np.append(self._cell_of, [self._columns[cell] for cell, _ in fresh])
        self._group_of = np.append(self._group_of, [group for _, group in fresh])
        self._known, self._control = np.pad(self._known, (0, grown)), np.pad(self._control, (0, grown))
        self._said = np.pad(self._said, ((0, 0), (0, 0), (0, grown)))

    def lose(self, partition: int) -> None:
        """Note that a step of the partition was lost: no evidence from it until it names every cell again."""
        self.synced[partition] = False

    def set_live(self, partition: int, live: bool, at_ms: int) -> None:
        """Count a partition in, or leave it out of the sums."""
        if self.live[partition] is live:
            return
        before = self._known.copy(), self._control.copy()
        self.live[partition] = live
        sign = 1 if live else -1
        self._known += sign * self._said[partition, 0].astype(np.int64)
        self._control += sign * self._said[partition, 1].astype(np.int64)
        self.margins.set_live(partition, live)
        self._history.state(at_ms, before, (self._known, self._control))

    def state(self, at_ms: int, windows: Sequence[tuple[int, CohortWindow]]) -> None:
        """Replace what partitions said by what they say by `at_ms`: (partition, window) pairs of one merged step.

        Raises:
            ValueError: a count is negative or larger than any fleet, or a tenant group is none.
        """
        before = self._known, self._control
        changed = False
        for partition, window in windows:
            if window.at_risk or window.full:
                # Sums are made anew below, so that those before need no copy while nothing is said.
                if not changed:
                    self._known, self._control = before[0].copy(), before[1].copy()
                changed = True
            self._state_one(partition, window)
        if changed:
            grown = len(self._known) - len(before[0])
            if grown:
                before = np.pad(before[0], (0, grown)), np.pad(before[1], (0, grown))
            self._history.state(at_ms, before, (self._known, self._control))

    def _state_one(self, partition: int, window: CohortWindow) -> None:
        if window.full:
            self.synced[partition] = True
            self._crash_totals[partition] = window.crash_total - len(window.crashes)
        self._crash_totals[partition] += len(window.crashes)
        if self._crash_totals[partition] != window.crash_total:
            self.synced[partition] = False
            self._crash_totals[partition] = window.crash_total
        self._exposed_totals[partition] = window.exposed_total
        self.pending[partition] = window.pending
        if window.full or window.at_risk:
            self._replace(partition, window)
        self.margins.state(partition, window.margins, full=window.full, live=self.live[partition])

    def _replace(self, partition: int, window: CohortWindow) -> None:
        """Put the counts of a window in the place of those that its partition said before."""
        pairs: list[int] = []
        counts: list[tuple[int, int]] = []
        for row in window.at_risk:
            if not (0 <= row.exposed <= COUNT_MAX and 0 <= row.control <= COUNT_MAX and 0 <= row.group < GROUPS):
                raise ValueError(
                    f"partition {partition} says {row.exposed, row.control} devices of {row.cell}, group {row.group}: "
                    f"no such counts can be"
                )
            pair = self._pair(row.cell, row.group)
            if pair is not None:
                pairs.append(pair)
                counts.append((row.exposed, row.control))
        self._reserve()
        said = self._said[partition]
        before = said.astype(np.int64)
        if window.full:
            said[:] = 0
        if pairs:
            said[:, pairs] = np.array(counts, dtype=np.int32).T
        if self.live[partition]:
            self._known += said[0] - before[0]
            self._control += said[1] - before[1]

    def rivals(self) -> list[str]:
        """Return the rollouts that cells with exposed devices at risk are split by."""
        some = (names for column, names in self._split.items() if self._known[self._pairs_of[column]].any())
        return sorted({name for names in some for name in names})

    def devices_with(self, rival: str) -> int:
        """Return exposed devices at risk that are exposed to a rival, too."""
        columns = [column for column, names in self._split.items() if rival in names]
        return sum(int(self._known[self._pairs_of[column]].sum()) for column in columns)

    def exposed_upper(self, bound: ExposureBound, at_ms: int) -> dict[int, float]:
        """Return the most devices at risk that may be exposed now, by tenant group."""
        if not len(self._known):
            return {}
        reached = bound.reach_of(self._rings, at_ms)[np.array(self._ring_of_cell)][self._cell_of]
        most = np.maximum(self._known, (self._known + self._control) * reached)
        sums = np.bincount(self._group_of, weights=most, minlength=GROUPS)
        return {group: float(sums[group]) for group in np.flatnonzero(sums).tolist()}

    def known_by_group(self) -> dict[int, int]:
        """Return the devices at risk that are known to be exposed, by tenant group."""
        sums = np.bincount(self._group_of, weights=self._known, minlength=GROUPS)
        return {group: int(sums[group]) for group in np.flatnonzero(sums).tolist()}

    def control_by_group(self) -> dict[int, int]:
        """Return the devices at risk that are not known to be exposed, by tenant group."""
        sums = np.bincount(self._group_of, weights=self._control, minlength=GROUPS)
        return {group: int(sums[group]) for group in np.flatnonzero(sums).tolist()}

    @staticmethod
    def too_old(at_ms: int, now_ms: int) -> bool:
        """Tell whether counts of that time are no longer kept."""
        return now_ms - at_ms > KEPT_MS

    def shares(
        self, places: Sequence[Place], exposed: npt.NDArray[np.bool_], bound: ExposureBound, now_ms: int
    ) -> Shares:
        """Return the exposed share at risk at each crash.

        A crash inside its step's interval is looked up over the whole interval, since the step does not say when in it
        the counts changed; an older one in the time of its event as finely as that is still known. The device that
        crashed counts as at risk in its arm.

        Where the device's build or model is exposed more than the fleet, its cell's odds are raised as much: an update
        that goes to one model is not compared with the others. In cells that are pushed to, and for every exposed
        crash, a share counts as at least `share_least`: in a push's first seconds counts are older than the world.
        """
        count = len(places)
        found = Shares(np.empty((count, ROWS)), *(np.empty(count) for _ in range(4)))
        # Crashes of one step come from few cells and margins, whose counts are the same for all of them.
        rows_at, enrichment = functools.cache(self._rows_at), functools.cache(self.margins.enrichment)
        enrichment_within = functools.cache(self.margins.enrichment_within)
        for index, place in enumerate(places):
            if place.at_ms > place.since_ms:
                span = place.since_ms, place.watermark_ms
            else:
                grain = CountHistory.grain_ms(place.at_ms, now_ms)
                begin = place.at_ms // grain * grain
                span = begin, begin + grain
            crashed = bool(exposed[index])
            cell = self.cells[place.column]
            reached = float(bound.reach_of([ring_of(cell)], span[1])[0])
            known, control = rows_at(span, tuple(self._pairs_of[place.column]))
            upper = share_upper(known, control, reached, crashed)
            for margin in place.margins:
                upper = corrected(upper, enrichment(margin))
            # Where nobody is or may be exposed, a control's crash says nothing, and must not be made to.
            least = bound.share_least if crashed or reached > 0 or known[NOBODY] > 0 else 0.0
            found.upper[index] = np.maximum(upper, least)
            found.known[index] = share_known(float(known[NOBODY]), float(control[NOBODY]), crashed)
            mine, others = (rows[NOBODY:] - rows[place.group] for rows in (known, control))
            found.known_group[index] = share_known(float(mine[0]), float(others[0]), crashed)
            own = share_upper(mine, others, reached, crashed)
            for margin in place.margins:
                own = corrected(own, enrichment_within(margin, place.group))
            found.own[index] = max(float(own[0]), least)
            siblings = self._bases[base_of(cell)]
            if len(siblings) > 1:
                pairs = tuple(pair for column in siblings for pair in self._pairs_of[column])
                known, control = rows_at(span, pairs)
                upper = share_upper(known, control, reached, crashed)
            found.marginal[index] = max(float(upper[NOBODY]), least)
        return found

    def _rows_at(self, span: tuple[int, int], pairs: tuple[int, ...]) -> tuple[Counts, Counts]:
        """Return the envelope of exposed and control devices of some pairs: shapes (33,), row j without group j."""
        columns = np.array(pairs, dtype=np.int64)
        known, control = self._history.envelope(*span, columns)
        groups = self._group_of[columns]
        without = np.zeros((2, ROWS), dtype=np.int64)
        np.add.at(without[0], groups, known)
        np.add.at(without[1], groups, control)
        # The last row is nobody's: nothing is taken from it.
        return int(known.sum()) - without[0], int(control.sum()) - without[1]

    def snapshot(self) -> CohortCountsState:
        """Return the state; `restore` of it goes on alike."""
        return CohortCountsState(
            cells=self.cells,
            pairs=list(zip(self._cell_of.tolist(), self._group_of.tolist(), strict=True)),
            rows=[
                [(pair, *one[:, pair].tolist()) for pair in np.flatnonzero(one.any(axis=0)).tolist()]
                for one in self._said
            ],
            live=self.live,
            synced=self.synced,
            crash_totals=self._crash_totals,
            exposed_totals=self._exposed_totals,
            pending=self.pending,
            history=self._history.snapshot(),
            margins=self.margins.snapshot(),
        )

    @classmethod
    def restore(cls, state: CohortCountsState) -> "CohortCounts":
        """Build the counts that `state` was taken from."""
        counts = cls(state.live, state.synced)
        for cell in state.cells:
            counts.column(cell)
        for column, group in state.pairs:
            counts._pair(state.cells[column], group)
        counts._told = len(state.cells)
        counts._reserve()
        for said, rows in zip(counts._said, state.rows, strict=True):
            for pair, exposed, control in rows:
                said[:, pair] = exposed, control
        live = counts._said[counts.live].sum(axis=0, dtype=np.int64)
        counts._known, counts._control = live[0], live[1]
        counts._crash_totals, counts._exposed_totals = state.crash_totals, state.exposed_totals
        counts.pending = state.pending
        counts._history = CountHistory.restore(state.history)
        counts.margins = MarginCounts.restore(state.margins, counts.live)
        return counts
