"""Strata for silence: the devices of one minute, by cell, tenant group and arm, told at its end and when overdue.

Counted in the same pass over the rows as the tables, so that a minute costs one look at each device.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ingest.events import RolloutNotice
from ingest.grouping.cells import PLACES, Cells
from ingest.windows import HeardMinute


class Counted(Protocol):
    """A watched rollout, as a stratum needs it."""

    notice: RolloutNotice

    def places(
        self,
        base: npt.NDArray[np.int16],
        members: npt.NDArray[Any],
        exposed: npt.NDArray[Any],
        crashed: npt.NDArray[np.uint32],
    ) -> npt.NDArray[np.int16]:
        """Return each device's place, -1 where it is not at risk."""
        ...


class Minute:
    """The devices last heard in one minute.

    Attributes:
        begin_s: start of the minute, seconds since the epoch.
        end_s: its end; cells and arms are taken as they stood then.
        silent: False at the minute's end: the strata's sizes. True when the overdue time has passed: how many are
            still last heard in it.
    """

    def __init__(self, begin_s: int, silent: bool) -> None:
        """Start with nobody counted."""
        self.begin_s, self.end_s, self.silent = begin_s, begin_s + 60, silent
        self.tables: dict[str, npt.NDArray[np.int64]] = {}

    def add(
        self,
        base: npt.NDArray[np.int16],
        members: npt.NDArray[Any],
        exposed: npt.NDArray[Any],
        crashed: npt.NDArray[np.uint32],
        watched: Sequence[Counted],
    ) -> None:
        """Count devices last heard in this minute."""
        for one in watched:
            places = one.places(base, members, exposed, crashed)
            table = self.tables.setdefault(one.notice.rollout, np.zeros(PLACES, np.int64))
            table += np.bincount(places + 1, minlength=PLACES + 1)[1:]


class Minutes:
    """The minutes that one step judges: the one that ended with it, and the one that fell due."""

    def __init__(self, cells: Cells, due: Sequence[Minute]) -> None:
        """Judge the minutes of `due`."""
        self._cells = cells
        self.due = due

    def strata(self) -> dict[str, list[HeardMinute]]:
        """Return what was counted, by rollout."""
        found: dict[str, list[HeardMinute]] = {}
        texts = self._cells.texts
        for minute in self.due:
            for name, table in minute.tables.items():
                rows = found.setdefault(name, [])
                for pair in np.unique(np.flatnonzero(table) >> 1).tolist():
                    control, exposed = table[2 * pair : 2 * pair + 2].tolist()
                    sizes = (0, 0, exposed, control) if minute.silent else (exposed, control, 0, 0)
                    rows.append(HeardMinute(minute.begin_s * 1000, texts[pair >> 5], pair & 31, *sizes))
        return found
