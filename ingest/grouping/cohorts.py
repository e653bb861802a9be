"""Count tables: for each watched rollout, how many devices are at risk, by cell, tenant group and arm.

A table is always what a count over all rows would give at the table's minute: changes are applied by taking the rows as
they were out and the rows as they are in, and at every minute (when time since boot and recency move on) it is counted
afresh. Nothing is accumulated beside the fleet's state, so a table can't drift from it; a test recounts.

At risk in rollout r: has the product, heard from within 26 hours, no crash since r began. The origin is the same for
both arms: resetting only the exposed one forges evidence.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.events import RolloutNotice
from ingest.grouping.cells import PLACES, Cells
from ingest.grouping.columns import Dictionaries
from ingest.grouping.fleet import Fleet, Rows
from ingest.windows import AtRisk, HeardMinute

ROLLOUTS_PER_PRODUCT_MAX = 4
ROLLOUTS_MAX = 64
_SCAN_ROWS = 131_072

Table = npt.NDArray[np.int64]


class Watched:
    """One rollout under watch in one partition.

    Attributes:
        update: number of its update; a device on it is exposed.
        watched_from_ms: watermark of the step that began watching.
        table: devices at risk by place.
        said: the table as it was last said.
        crash_total: first crashes admitted since the origin, both arms.
    """

    def __init__(self, notice: RolloutNotice, update: int, product: int, watched_from_ms: int) -> None:
        """Begin watching; the table is empty until counted."""
        self.notice = notice
        self.update = update
        self.product = product
        self.origin_s = notice.origin_ms // 1000
        self.watched_from_ms = watched_from_ms
        self.table: Table = np.zeros(PLACES, np.int64)
        self.said: Table = np.zeros(PLACES, np.int64)
        self.full = True
        self.exposed_total = 0
        self.exposed_said = -1
        self.crash_total = 0

    def arms(self, rows: Rows, words: Dictionaries) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return which devices have the product, and which of them are exposed."""
        updates = rows["update"]
        exposed = (updates == self.update).any(axis=1)
        member = exposed | (words.product_of[updates] == self.product).any(axis=1)
        return member, exposed

    def places(
        self, rows: Rows, base: npt.NDArray[np.int64], words: Dictionaries
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return each device's place (-1 where not at risk in this rollout), and which are exposed at all."""
        member, exposed = self.arms(rows, words)
        counts = member & (base >= 0) & (rows["crashed"] < self.origin_s)
        return np.where(counts, base + exposed, -1), exposed


class Cohorts:
    """The count tables of one partition."""

    def __init__(self, fleet: Fleet, words: Dictionaries, cells: Cells) -> None:
        """Make an empty set of tables over `fleet`."""
        self._fleet = fleet
        self._words = words
        self.cells = cells
        self.watched: dict[str, Watched] = {}
        self.minute_s = 0

    def watch(self, notice: RolloutNotice, at_ms: int) -> Watched | None:
        """Begin watching a rollout, or take a later notice of it; None when it can't be watched or is over.

        The oldest rollout of a product makes room for its fifth; beyond `ROLLOUTS_MAX` the oldest of all does.
        """
        if notice.closed:
            self.watched.pop(notice.rollout, None)
            return None
        known = self.watched.get(notice.rollout)
        if known is not None:
            return known
        update = self._words.update_number(notice.vendor, notice.product, notice.version)
        if not update:
            return None
        product = int(self._words.product_of[update])
        same = [w for w in self.watched.values() if w.product == product]
        if len(same) >= ROLLOUTS_PER_PRODUCT_MAX:
            del self.watched[min(same, key=lambda w: w.origin_s).notice.rollout]
        elif len(self.watched) >= ROLLOUTS_MAX:
            del self.watched[min(self.watched.values(), key=lambda w: w.origin_s).notice.rollout]
        made = Watched(notice, update, product, at_ms)
        self.watched[notice.rollout] = made
        self._count([made])
        return made

    def bases(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return each device's place but for the arm, at the tables' minute; -1 where not at risk."""
        cell = self.cells.numbers(rows, self.minute_s, rows["heard"], rows["boot_at"])
        return np.where(cell >= 0, cell * 64 + self.cells.groups(rows) * 2, -1)

    def exchange(self, before: Rows, after: Rows) -> None:
        """Take devices out of the tables as they were, and put them in as they are.

        Args:
            before: rows as the tables count them; a new device has an empty row, which counts nowhere.
            after: the same devices' rows now.
        """
        if not self.watched:
            return
        base_before, base_after = self.bases(before), self.bases(after)
        for watched in self.watched.values():
            was, was_exposed = watched.places(before, base_before, self._words)
            now, now_exposed = watched.places(after, base_after, self._words)
            watched.exposed_total += int(now_exposed.sum()) - int(was_exposed.sum())
            moved = was != now
            if moved.any():
                out, into = was[moved], now[moved]
                np.subtract.at(watched.table, out[out >= 0], 1)
                np.add.at(watched.table, into[into >= 0], 1)

    def move_to(self, minute_s: int) -> None:
        """Count all tables afresh as of `minute_s`, seconds since the epoch."""
        self.minute_s = minute_s
        self._count(list(self.watched.values()))

    def _count(self, watched: list[Watched]) -> None:
        for one in watched:
            one.table = np.zeros(PLACES, np.int64)
            one.exposed_total = 0
        if not watched:
            return
        for rows in scan(self._fleet):
            base = self.bases(rows)
            for one in watched:
                places, exposed = one.places(rows, base, self._words)
                one.table += np.bincount(places[places >= 0], minlength=PLACES)
                one.exposed_total += int(exposed.sum())

    def changes(self, watched: Watched) -> list[AtRisk]:
        """Return the counts that changed since they were last said, and note them as said."""
        if watched.full:
            places = np.flatnonzero(watched.table)
        else:
            places = np.flatnonzero(watched.table != watched.said)
        if len(places) == 0:
            return []
        pairs = np.unique(places >> 1)
        both = watched.table.reshape(-1, 2)[pairs]
        watched.said = watched.table.copy()
        texts = self.cells.texts
        return [
            AtRisk(texts[pair >> 5], pair & 31, exposed, control)
            for pair, (control, exposed) in zip(pairs.tolist(), both.tolist(), strict=True)
        ]

    def heard_minutes(self, minute_s: int, silent: bool) -> dict[str, list[HeardMinute]]:
        """Return, for each watched rollout, the strata of devices last heard in the minute that began at `minute_s`.

        Args:
            minute_s: start of the minute, seconds since the epoch.
            silent: False at the minute's end: the strata's sizes. True when the overdue time has passed: how many are
                still last heard then. Cells and arms are as they stood at the minute's end, both times.
        """
        tables = {name: np.zeros(PLACES, np.int64) for name in self.watched}
        end_s = minute_s + 60
        for rows in scan(self._fleet, lambda part: (part["heard"] >= minute_s) & (part["heard"] < end_s)):
            cell = self.cells.numbers(rows, end_s, rows["heard"], rows["boot_at"])
            base = cell * 64 + self.cells.groups(rows) * 2
            for name, watched in self.watched.items():
                member, _ = watched.arms(rows, self._words)
                exposed = ((rows["update"] == watched.update) & (rows["since"] < end_s)).any(axis=1)
                counted = member & (rows["crashed"] < watched.origin_s)
                tables[name] += np.bincount((base + exposed)[counted], minlength=PLACES)
        return {name: self._strata(minute_s, table, silent) for name, table in tables.items()}

    def _strata(self, minute_s: int, table: Table, silent: bool) -> list[HeardMinute]:
        texts = self.cells.texts
        strata = []
        for pair in np.unique(np.flatnonzero(table) >> 1).tolist():
            control, exposed = table[2 * pair : 2 * pair + 2].tolist()
            sizes = (0, 0, exposed, control) if silent else (exposed, control, 0, 0)
            strata.append(HeardMinute(minute_s * 1000, texts[pair >> 5], pair & 31, *sizes))
        return strata


def scan(fleet: Fleet, where: Callable[[Rows], npt.NDArray[Any]] | None = None) -> Iterator[Rows]:
    """Yield all devices' rows in bounded parts; empty rows are left out, and those that `where` does not pick."""
    rows = fleet.rows
    for start in range(0, len(rows), _SCAN_ROWS):
        part = rows[start : start + _SCAN_ROWS]
        picked = part["key"] != 0
        if where is not None:
            picked &= where(part)
        yield part[picked]
