"""Rivals: other rollouts that a rollout's devices are on, and how its cells are split by their presence.

Two updates that travel together share their crashes. Each is judged fairly only among devices that agree on the other,
so the cells of a rollout are split by which of its rivals a device is exposed to: none, one, the other, or both.

Rivals of a rollout are rollouts of other products that at least one device is exposed to beside it, heard from within
26 hours; whether it crashed does not matter, for outcomes decide nothing here. At most two, the youngest by origin.
They are chosen at minutes only, and one that was chosen stays until it is no longer under watch or younger ones take
its place: so cells don't move to and fro with a handful of devices.

An `Era` is the time for which cells are split in one way. A crash or a stratum of an earlier time is told by the era of
its own time, whose counts are those it was at risk among.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ingest.grouping.cells import BASE_CELLS_MAX, CELLS_MAX, PLACES, SPLITS, TIMES, Cells
from ingest.tenancy import GROUPS

RIVALS_MAX = 2
# The newest and three before it, for crashes told late: rivals change when a rollout begins or ends, a few times a day.
ERAS_MAX = 4
# Numbers of split cells follow those of whole ones: the coarse ones of each split, then the fine ones.
_COARSE = CELLS_MAX
_FINE = CELLS_MAX + SPLITS * TIMES
_NUMBERS = _FINE + BASE_CELLS_MAX - TIMES
SPLIT_PLACES = _NUMBERS * GROUPS * 2

Splits = npt.NDArray[np.int16]
Numbers = npt.NDArray[Any]


class Rival(NamedTuple):
    """A rival: its rollout's id, and the number of its update."""

    rollout: str
    update: int


class EraState(msgspec.Struct, array_like=True):
    """An era in a snapshot.

    Attributes:
        from_s: its first second.
        rivals: id and update number of each.
        fine: the fine split cells met, in the order of their numbers.
    """

    from_s: int
    rivals: list[tuple[str, int]]
    fine: list[int]


class Era:
    """How a rollout's cells are split from one time on.

    A split is a number from 0 (exposed to no rival) to 3, one bit a rival in the order of their ids. Split cells and
    whole ones together are at most 256: a fine split cell takes room that whole cells have left, and beyond that the
    split cells are coarse (time since boot, recency and rivals), for which there is always room. Who is first met gets
    it, by exposure alone. Whole cells that are met later make the era crowded, until the next minute begins another.

    Attributes:
        from_s: its first second, seconds since the epoch.
        rivals: at most two, sorted by id; none: cells are whole.
        fine: the fine split cells met, `cell * 4 + split`, in the order of their numbers.
    """

    def __init__(self, cells: Cells, from_s: int, rivals: Iterable[Rival] = (), fine: Sequence[int] = ()) -> None:
        """Begin with the fine split cells of a snapshot, or none."""
        self._cells = cells
        self.from_s = from_s
        self.rivals = tuple(sorted(rivals))
        self.fine: list[int] = []
        self._number = np.full(CELLS_MAX * (SPLITS + 1) if self.rivals else 0, -1, np.int16)
        self._suffixes = [self._suffix(split) for split in range(SPLITS + 1)]
        # Of split cells, by number: made once, for a window names hundreds of rows four times a second.
        self._texts = [cells.texts[time] + suffix for suffix in self._suffixes[1:] for time in range(TIMES)]
        for code in fine:
            self._take(code)

    @property
    def places(self) -> int:
        """How many places a table of this era has."""
        return SPLIT_PLACES if self.rivals else PLACES

    @property
    def crowded(self) -> bool:
        """Whether whole and split cells together are more than 256 by now."""
        return len(self._cells.texts) + len(self.fine) > BASE_CELLS_MAX

    def numbers(self, cells: Numbers, splits: Splits) -> Numbers:
        """Return the numbers of cells split, shape (n,); a whole cell's stays what it is.

        Args:
            cells: numbers of whole cells, shape (n,), none negative.
            splits: 0 to 3 each, shape (n,).
        """
        code = cells * (SPLITS + 1) + splits
        number = self._number[code]
        whole = splits == 0
        number[whole] = cells[whole]
        unmet = number < 0
        if unmet.any():
            self._meet(np.unique(code[unmet]).tolist())
            number[unmet] = self._number[code[unmet]]
        return number

    def split(self, places: Numbers, splits: Splits) -> Numbers:
        """Return places with their cells split; -1 (not at risk) stays -1.

        Args:
            places: `cell * 64 + group * 2 + arm` of whole cells, shape (n,).
            splits: 0 to 3 each, shape (n,).
        """
        concerned = np.flatnonzero((places >= 0) & (splits > 0))
        if len(concerned) == 0:
            return places
        if len(concerned) < len(places):
            moved = places.copy()
            moved[concerned] = self._moved(places[concerned], splits[concerned])
            return moved
        return self._moved(places, splits)

    def _moved(self, places: Numbers, splits: Splits) -> Numbers:
        # The highest place of all fits 16 bits.
        return (self.numbers(places >> 6, splits) << 6) + (places & 63)

    def text(self, number: int) -> str:
        """Return the text of a cell by its number."""
        return self._cells.texts[number] if number < _COARSE else self._texts[number - _COARSE]

    def state(self) -> EraState:
        """Return the era for a snapshot."""
        return EraState(self.from_s, [(rival.rollout, rival.update) for rival in self.rivals], self.fine)

    def _suffix(self, split: int) -> str:
        return "|" + "+".join(rival.rollout for bit, rival in enumerate(self.rivals) if split >> bit & 1)

    def _meet(self, codes: Sequence[int]) -> None:
        for code in codes:
            cell, split = divmod(code, SPLITS + 1)
            room = len(self._cells.texts) + len(self.fine) < BASE_CELLS_MAX
            if room and cell >= TIMES:
                self._take(code)
            else:
                self._number[code] = _COARSE + (split - 1) * TIMES + self._cells.times[cell]

    def _take(self, code: int) -> None:
        self._number[code] = _FINE + len(self.fine)
        self.fine.append(code)
        cell, split = divmod(code, SPLITS + 1)
        self._texts.append(self._cells.texts[cell] + self._suffixes[split])


def era_of(state: EraState, cells: Cells) -> Era:
    """Return the era that a snapshot kept."""
    return Era(cells, state.from_s, [Rival(*rival) for rival in state.rivals], state.fine)


def era_at(eras: Sequence[Era], at_s: int) -> Era:
    """Return the era of a time: the last that had begun by then, the oldest kept for a time before all."""
    return next((era for era in reversed(eras) if era.from_s <= at_s), eras[0])
