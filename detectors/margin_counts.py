"""Devices at risk by exact OS build and by model: how far each is exposed, whatever cell its devices are in.

Kept beside the cells' counts, from what device partitions say once a minute. Two uses: an update that goes to one model
first must not be compared with the other models, and the gate asks for the exposed device-time of every one of them.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from detectors.exposure import Counts
from detectors.sequential import Floats
from detectors.tenants import GROUPS, NOBODY, ROWS
from ingest.windows import MarginRisk

# 64 builds and 64 models, and `other` of each.
MARGINS_MAX: Final = 130
_COUNT_MAX: Final = 2**31 - 1


class MarginCountsState(msgspec.Struct, kw_only=True):
    """What `MarginCounts.snapshot` gives; rows are (margin, group, exposed, control)."""

    names: list[str]
    rows: list[list[tuple[str, int, int, int]]]


class MarginCounts:
    """Counts at risk by margin and tenant group, absolute by device partition, summed over live ones."""

    def __init__(self, partitions: int) -> None:
        self._rows: list[dict[tuple[str, int], tuple[int, int]]] = [{} for _ in range(partitions)]
        self._sums: dict[str, Counts] = {}

    @property
    def names(self) -> list[str]:
        """The margins that devices at risk were seen in."""
        return list(self._sums)

    def state(self, partition: int, rows: Sequence[MarginRisk], *, full: bool, live: bool) -> None:
        """Replace what a partition said; `full` rows name every margin, others only those that changed.

        Raises:
            ValueError: a count is negative or larger than any fleet, or a tenant group is none.
        """
        said = self._rows[partition]
        if full:
            for (margin, group), counts in said.items():
                self._move(margin, group, counts, -1 if live else 0)
            said.clear()
        for row in rows:
            if not (0 <= row.exposed <= _COUNT_MAX and 0 <= row.control <= _COUNT_MAX and 0 <= row.group < GROUPS):
                raise ValueError(f"partition {partition} says {row}: no such counts can be")
            if row.margin not in self._sums and len(self._sums) >= MARGINS_MAX:
                continue
            old = said.get((row.margin, row.group), (0, 0))
            self._move(row.margin, row.group, old, -1 if live else 0)
            self._move(row.margin, row.group, (row.exposed, row.control), 1 if live else 0)
            said[row.margin, row.group] = row.exposed, row.control

    def set_live(self, partition: int, live: bool) -> None:
        """Count a partition in, or leave it out of the sums."""
        for (margin, group), counts in self._rows[partition].items():
            self._move(margin, group, counts, 1 if live else -1)

    def _move(self, margin: str, group: int, counts: tuple[int, int], sign: int) -> None:
        sums = self._sums.get(margin)
        if sums is None:
            sums = self._sums[margin] = np.zeros((2, GROUPS), dtype=np.int64)
        sums[0, group] += sign * counts[0]
        sums[1, group] += sign * counts[1]

    def known(self, margin: str) -> Counts:
        """Return known exposed devices at risk of a margin by tenant group, shape (32,); zeros where it is unknown."""
        sums = self._sums.get(margin)
        return np.zeros(GROUPS, dtype=np.int64) if sums is None else sums[0]

    def totals(self) -> Mapping[str, tuple[int, int]]:
        """Return known exposed and control devices at risk by margin."""
        return {margin: (int(sums[0].sum()), int(sums[1].sum())) for margin, sums in self._sums.items()}

    def shares(self, margin: str, crashed: bool) -> Floats:
        """Return the known exposed share of a margin, row by row of the groups left out: shape (33,).

        Args:
            margin: its name; one that nobody named has a share of 0.
            crashed: the device that crashed was exposed: it counts in its arm.
        """
        sums = self._sums.get(margin)
        if sums is None:
            return np.zeros(ROWS)
        totals = sums.sum(axis=1)
        exposed = np.append(totals[0] - sums[0], totals[0])
        control = np.append(totals[1] - sums[1], totals[1])
        assert len(exposed) == NOBODY + 1
        exposed, control = np.maximum(exposed, crashed), np.maximum(control, not crashed)
        share: Floats = exposed / np.maximum(exposed + control, 1)
        return share

    def snapshot(self) -> MarginCountsState:
        """Return the state; `restore` of it goes on alike."""
        return MarginCountsState(
            names=list(self._sums),
            rows=[[(*key, *counts) for key, counts in rows.items()] for rows in self._rows],
        )

    @classmethod
    def restore(cls, state: MarginCountsState, live: Sequence[bool]) -> "MarginCounts":
        """Build the counts that `state` was taken from."""
        counts = cls(len(state.rows))
        counts._sums = {name: np.zeros((2, GROUPS), dtype=np.int64) for name in state.names}
        counts._rows = [{(row[0], row[1]): (row[2], row[3]) for row in rows} for rows in state.rows]
        for rows, one in zip(counts._rows, live, strict=True):
            for (margin, group), told in rows.items():
                counts._move(margin, group, told, 1 if one else 0)
        return counts
