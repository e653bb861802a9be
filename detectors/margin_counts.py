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
from detectors.tenants import GROUPS, ROWS
from ingest.windows import MarginRisk

# 64 builds and 64 models, and `other` of each.
MARGINS_MAX: Final = 130
_TOLERANCE: Final = 1.2
_COUNT_MAX: Final = 2**31 - 1


_Sums = tuple[list[int], list[int]]


class MarginCountsState(msgspec.Struct, kw_only=True):
    """What `MarginCounts.snapshot` gives; rows are (margin, group, exposed, control)."""

    names: list[str]
    rows: list[list[tuple[str, int, int, int]]]


class MarginCounts:
    """Counts at risk by margin and tenant group, absolute by device partition, summed over live ones."""

    def __init__(self, partitions: int) -> None:
        self._rows: list[dict[tuple[str, int], tuple[int, int]]] = [{} for _ in range(partitions)]
        # Exposed and control devices by tenant group, as plain numbers: most windows move a few of them.
        self._sums: dict[str, _Sums] = {}
        # All devices at risk, as the margins of one field (builds, models) add up to them.
        self._fields: dict[str, _Sums] = {}

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
        sign = 1 if live else 0
        # In full windows most rows say what they said before: those cost a look.
        gone = set(said) if full else set()
        for row in rows:
            if not (0 <= row.exposed <= _COUNT_MAX and 0 <= row.control <= _COUNT_MAX and 0 <= row.group < GROUPS):
                raise ValueError(f"partition {partition} says {row}: no such counts can be")
            key, new = (row.margin, row.group), (row.exposed, row.control)
            if row.margin not in self._sums and len(self._sums) >= MARGINS_MAX:
                continue
            gone.discard(key)
            old = said.get(key, (0, 0))
            if new != old or key not in said:
                self._move(*key, (new[0] - old[0], new[1] - old[1]), sign)
                said[key] = new
        for key in sorted(gone):
            self._move(*key, said.pop(key), -sign)

    def set_live(self, partition: int, live: bool) -> None:
        """Count a partition in, or leave it out of the sums."""
        for (margin, group), counts in self._rows[partition].items():
            self._move(margin, group, counts, 1 if live else -1)

    def _move(self, margin: str, group: int, counts: tuple[int, int], sign: int) -> None:
        sums = self._sums.get(margin)
        if sums is None:
            sums = self._sums[margin] = _zeros()
        fleet = self._fields.get(margin.partition("=")[0])
        if fleet is None:
            fleet = self._fields[margin.partition("=")[0]] = _zeros()
        for one in (sums, fleet):
            one[0][group] += sign * counts[0]
            one[1][group] += sign * counts[1]

    def known(self, margin: str) -> Counts:
        """Return known exposed devices at risk of a margin by tenant group, shape (32,); zeros where it is unknown."""
        return np.array(self._sums.get(margin, _zeros())[0], dtype=np.int64)

    def totals(self) -> Mapping[str, tuple[int, int]]:
        """Return known exposed and control devices at risk by margin."""
        return {margin: (sum(sums[0]), sum(sums[1])) for margin, sums in self._sums.items()}

    def enrichment(self, margin: str) -> Floats:
        """Return how much larger a margin's odds of being exposed are than the fleet's: shape (33,), row by row, >= 1.

        Of the margin's exposed devices two standard deviations are taken off first, and then a fifth: which devices of
        a small margin a ring picks is chance, and what is tolerated of a rate ratio covers a fifth. A margin that
        nobody named is like the fleet.
        """
        sums = self._sums.get(margin)
        fleet = self._fields.get(margin.partition("=")[0])
        if sums is None or fleet is None or not any(sums[0]):
            return np.ones(ROWS)
        return _enriched(*(_without(one) for one in (*sums, *fleet)))

    def enrichment_within(self, margin: str, group: int) -> float:
        """Return the same among the devices of one tenant group."""
        sums = self._sums.get(margin)
        fleet = self._fields.get(margin.partition("=")[0])
        if sums is None or fleet is None or not sums[0][group]:
            return 1.0
        return float(_enriched(*(np.array(one[group], dtype=np.float64) for one in (*sums, *fleet))))

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
        counts._sums = {name: _zeros() for name in state.names}
        counts._rows = [{(row[0], row[1]): (row[2], row[3]) for row in rows} for rows in state.rows]
        for rows, one in zip(counts._rows, live, strict=True):
            for (margin, group), told in rows.items():
                counts._move(margin, group, told, 1 if one else 0)
        return counts


def _zeros() -> _Sums:
    return [0] * GROUPS, [0] * GROUPS


def _enriched(exposed: Floats, control: Floats, all_exposed: Floats, all_control: Floats) -> Floats:
    sure = np.maximum(exposed - 2.0 * np.sqrt(exposed), 0.0)
    factor: Floats = sure * (all_control + 0.5) / ((control + 0.5) * (all_exposed + 0.5)) / _TOLERANCE
    return np.maximum(factor, 1.0)


def _without(counts: list[int]) -> Floats:
    """Return the sum without each group, and last with all: shape (33,)."""
    told = np.array(counts, dtype=np.float64)
    total = told.sum()
    return np.append(total - told, total)
