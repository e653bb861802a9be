"""Strata for silence: the devices of one minute, by cell, tenant group and arm, told at its end and when overdue.

Counted in the same pass over the rows as the tables, so that a minute costs one look at each device. Minutes are those
of the rollout, which begin at a second of its own. Their cells are
split by rivals like those of the tables: silence of devices that are on two updates must not speak against the wrong
one. Both words of a stratum go by the rivals there were at its minute's end.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.grouping.rivals import Era
from ingest.windows import HeardMinute


class Minute:
    """The devices last heard in one minute.

    Attributes:
        begin_s: start of the minute, seconds since the epoch.
        end_s: its end; cells and arms are taken as they stood then.
        told_s: when it is told: the minute that the tables stand at by then.
        silent: False at the minute's end: the strata's sizes. True when the overdue time has passed: how many are
            still last heard in it.
    """

    def __init__(self, begin_s: int, told_s: int, silent: bool) -> None:
        """Start with nobody counted."""
        self.begin_s, self.end_s, self.told_s, self.silent = begin_s, begin_s + 60, told_s, silent
        self.tables: dict[str, tuple[Era, npt.NDArray[np.int64]]] = {}

    def add(self, rollout: str, era: Era, places: npt.NDArray[Any]) -> None:
        """Count devices last heard in this minute.

        Args:
            rollout: whose cells these are.
            era: how its cells were split at the minute's end: its sizes and its silent are told in the same cells.
            places: each device's place in them, -1 where it is not at risk, shape (n,).
        """
        table = self.tables.setdefault(rollout, (era, np.zeros(era.places, np.int64)))[1]
        table += np.bincount(np.add(places, 1, dtype=np.intp), minlength=len(table) + 1)[1:]


class Minutes:
    """The minutes that one step judges: those that ended with it, and those that fell due."""

    def __init__(self, due: Sequence[Minute]) -> None:
        """Judge the minutes of `due`."""
        self.due = due

    def strata(self) -> dict[str, list[HeardMinute]]:
        """Return what was counted, by rollout."""
        found: dict[str, list[HeardMinute]] = {}
        for minute in self.due:
            for name, (era, table) in minute.tables.items():
                rows = found.setdefault(name, [])
                for pair in np.unique(np.flatnonzero(table) >> 1).tolist():
                    control, exposed = table[2 * pair : 2 * pair + 2].tolist()
                    sizes = (0, 0, exposed, control) if minute.silent else (exposed, control, 0, 0)
                    rows.append(HeardMinute(minute.begin_s * 1000, era.text(pair >> 5), pair & 31, *sizes))
        return found
