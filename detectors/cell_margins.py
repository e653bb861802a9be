"""What a cell's text says: its margins, its rivals; counts by cell become counts by margin in one product.

Kept beside the counts, since the gate asks every minute of every rollout. Cells are met once and never leave, so a
column stands for one cell for good.
"""

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.exposure import Counts, ring_of
from ingest.windows import BootBand, Recency

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
# Fields of a cell's text that are margins of their own.
_FIELDS: Final = {"family": 0, "form": 1, "boot": 3}
_BOOT, _RECENCY = 3, 4
# So many fields say nothing of rival rollouts; a further one names the rivals.
_WHOLE: Final = 5


@lru_cache(maxsize=65_536)
def margins_of_cell(cell: str) -> tuple[str, ...]:
    """Return the margins that a cell's text tells by itself.

    Example:
        >>> margins_of_cell("22631|laptop|early|old|recent")
        ('family=22631', 'form=laptop', 'boot=old')
        >>> margins_of_cell("*|*|*|day|recent")
        ('boot=day',)
    """
    fields = cell.split("|")
    named = ((name, fields[place]) for name, place in _FIELDS.items() if place < len(fields))
    return tuple(f"{name}={text}" for name, text in named if text not in ("*", ""))


def base_of(cell: str) -> str:
    """Return a cell's text without the rivals that its devices are exposed to.

    Example:
        >>> base_of("22631|laptop|early|old|recent|r-ab12")
        '22631|laptop|early|old|recent'
    """
    return "|".join(cell.split("|")[:_WHOLE])


def rivals_of(cell: str) -> tuple[str, ...]:
    """Return the rivals that a cell's text names.

    Example:
        >>> rivals_of("22631|laptop|early|old|recent|r-ab12+r-cd34"), rivals_of("22631|laptop|early|old|recent")
        (('r-ab12', 'r-cd34'), ())
    """
    split = cell.split("|")[_WHOLE:]
    return tuple(split[0].split("+")) if split else ()


class CellMargins:
    """The margins of cells in the order in which cells were met.

    Attributes:
        names: the margins in the order in which cells of them were met.

    Example:
        >>> index = CellMargins()
        >>> index.add("22631|laptop|early|old|recent"), index.add("22631|desktop|broad|old|stale")
        (None, None)
        >>> dict(zip(index.names, index.sums(np.array([3, 4])).tolist(), strict=True))
        {'family=22631': 7, 'form=laptop': 3, 'boot=old': 7, 'form=desktop': 4}
        >>> index.in_ring("broad").tolist(), index.stale().tolist()
        ([False, True], [False, True])
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._rows: dict[str, int] = {}
        self._margins: list[tuple[str, ...]] = []
        self._rings: list[str] = []
        self._fresh: list[bool] = []
        self._stale: list[bool] = []
        self._members: Floats | None = None

    def add(self, cell: str) -> None:
        """Take a cell that was not met before."""
        fields = cell.split("|")
        self._margins.append(margins_of_cell(cell))
        self._rings.append(ring_of(cell))
        self._fresh.append(BootBand.FRESH in fields[_BOOT : _BOOT + 1])
        self._stale.append(Recency.STALE in fields[_RECENCY : _RECENCY + 1])
        for name in self._margins[-1]:
            if name not in self._rows:
                self._rows[name] = len(self.names)
                self.names.append(name)
        self._members = None

    def sums(self, counts: Counts) -> Counts:
        """Return counts by margin: of counts by cell of shape (cells, ...), shape (margins, ...)."""
        if self._members is None:
            self._members = np.zeros((len(self.names), len(self._margins)))
            for column, names in enumerate(self._margins):
                self._members[[self._rows[name] for name in names], column] = 1.0
        # Counts of devices are far below 2^53, so that a product of floats is exact.
        found: Counts = (self._members @ counts).astype(np.int64)
        return found

    def in_ring(self, ring: str) -> Flags:
        """Tell which cells are of a ring: shape (cells,)."""
        found: Flags = np.array([one == ring for one in self._rings], dtype=bool)
        return found

    def fresh(self) -> Flags:
        """Tell which cells' devices have just booted: shape (cells,)."""
        return np.array(self._fresh, dtype=bool)

    def stale(self) -> Flags:
        """Tell which cells' devices were not heard from lately: shape (cells,)."""
        return np.array(self._stale, dtype=bool)
