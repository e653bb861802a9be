"""Cells by number, as one rollout says them: texts, and the place in a table of a device's cell, group and arm."""

from typing import Final

import numpy as np

from detectors.backtest.cohort.people import People
from detectors.backtest.draws import Ints
from ingest.tenancy import GROUPS
from ingest.windows import BootBand, Recency

_BANDS: Final = tuple(BootBand)
_RECENCIES: Final = tuple(Recency)
STATES: Final = len(_BANDS) * len(_RECENCIES)
# As many cells as grouping keeps apart; what comes later is coarse.
_CELLS_MAX: Final = 238
_COARSE: Final = "*|*|*"


class RolloutCells:
    """The cells of one rollout.

    Args:
        people: the devices.
        rivals: ids of the rollouts by which the cells are split, ascending.

    Attributes:
        texts: text of each cell.
        places: size of a table: cells times tenant groups times arms.
    """

    def __init__(self, people: People, rivals: list[str]) -> None:
        prefixes = list(dict.fromkeys(prefix for prefix, _ in people.statics))
        self._prefix = np.array([prefixes.index(prefix) for prefix, _ in people.statics], dtype=np.int64)
        self._group = np.array([group for _, group in people.statics], dtype=np.int64)
        splits = 1 << len(rivals)
        self._number = np.zeros((len(prefixes), STATES, splits), dtype=np.int64)
        known: dict[str, int] = {}
        for split in range(splits):
            suffix = "|" + "+".join(name for bit, name in enumerate(rivals) if split >> bit & 1) if split else ""
            for place, prefix in enumerate(prefixes):
                room = len(known) + STATES <= _CELLS_MAX
                for state in range(STATES):
                    band, recency = divmod(state, len(_RECENCIES))
                    text = f"{prefix if room else _COARSE}|{_BANDS[band]}|{_RECENCIES[recency]}{suffix}"
                    self._number[place, state, split] = known.setdefault(text, len(known))
        self.texts = list(known)
        self.places = len(self.texts) * GROUPS * 2

    def place(self, static: Ints, state: Ints, split: Ints, arm: Ints) -> Ints:
        """Return places in a table: `(cell * 32 + group) * 2 + arm`; all shapes (n,), `state` not absent."""
        cell = self._number[self._prefix[static], state, split]
        found: Ints = (cell * GROUPS + self._group[static]) * 2 + arm
        return found

    def group(self, static: Ints) -> Ints:
        """Return tenant groups."""
        return self._group[static]

    def cell(self, static: int, state: int, split: int) -> str:
        """Return the text of one device's cell."""
        return self.texts[int(self._number[self._prefix[static], state, split])]
