"""Count tables: for each watched rollout, how many devices are at risk, by cell, tenant group and arm.

A table is always what a count over all rows would give at the table's minute: changes are applied by taking the rows as
they were out and the rows as they are in, and at every minute (when time since boot and recency move on) it is counted
afresh. Nothing is accumulated beside the fleet's state, so a table can't drift from it; a test recounts.

At risk in rollout r: has the product, heard from within 26 hours, no crash since r began. The origin is the same for
both arms: resetting only the exposed one forges evidence.

Each watched rollout has a bit of its own, so that one look at a device's updates tells its arm in all of them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.events import RolloutNotice
from ingest.grouping.cells import PLACES, Cells
from ingest.grouping.columns import UPDATES_MAX, Dictionaries
from ingest.grouping.fleet import Fleet, Rows
from ingest.grouping.strata import Minutes
from ingest.windows import AtRisk, HeardMinute

ROLLOUTS_PER_PRODUCT_MAX = 4
ROLLOUTS_MAX = 64
# Rows counted at a time: 1.3 MB, so that what a pass computes of them stays in a processor's own cache.
_SCAN_ROWS = 16_384

Table = npt.NDArray[np.int64]
Bits = npt.NDArray[np.unsignedinteger[Any]]
Places = npt.NDArray[np.int16]


class Watched:
    """One rollout under watch in one partition.

    Attributes:
        update: number of its update; a device on it is exposed.
        mask: its bit.
        watched_from_ms: watermark of the step that began watching.
        table: devices at risk by place.
        said: the table as it was last said.
        moved: whether the table was touched since then.
        full: whether the next window names every cell.
        exposed_total: devices exposed now, at risk or not.
        exposed_said: that number as it was last said.
        crash_total: first crashes admitted since the origin, both arms.
    """

    def __init__(self, notice: RolloutNotice, update: int, product: int, bit: int, watched_from_ms: int) -> None:
        """Begin watching; the table is empty until counted."""
        self.notice = notice
        self.update = update
        self.product = product
        self.mask = 1 << bit
        self.bit = bit
        self.origin_s = notice.origin_ms // 1000
        self.watched_from_ms = watched_from_ms
        self.table: Table = np.zeros(PLACES, np.int64)
        self.said: Table = np.zeros(PLACES, np.int64)
        self.moved = True
        self.full = True
        self.exposed_total = 0
        self.exposed_said = -1
        self.crash_total = 0

    def exposed_in(self, exposed: Bits) -> int:
        """Return how many devices are exposed, at risk or not."""
        return int(np.count_nonzero(exposed & self.mask))

    def places(self, base: Places, members: Bits, exposed: Bits, crashed: npt.NDArray[np.uint32]) -> Places:
        """Return each device's place, -1 where it is not at risk in this rollout."""
        counts = ((members & self.mask) != 0) & (base >= 0) & (crashed < self.origin_s)
        places: Places = np.where(counts, base + ((exposed & self.mask) != 0), -1)
        return places


class Cohorts:
    """The count tables of one partition."""

    def __init__(self, fleet: Fleet, words: Dictionaries, cells: Cells) -> None:
        """Make an empty set of tables over `fleet`."""
        self._fleet = fleet
        self.words = words
        self.cells = cells
        self.watched: dict[str, Watched] = {}
        self.minute_s = 0
        self._member_bits: Bits = np.zeros(UPDATES_MAX, np.uint8)
        self._exposed_bits: Bits = np.zeros(UPDATES_MAX, np.uint8)
        self._bits_of: object = None

    def watch(self, notice: RolloutNotice, at_ms: int) -> Watched | None:
        """Begin watching a rollout, or take a later notice of it; None when it can't be watched or is over.

        The oldest rollout of a product makes room for its fifth; beyond `ROLLOUTS_MAX` the oldest of all does. A later
        notice never moves the origin: the crashes already told were counted from it.
        """
        if notice.closed:
            self.watched.pop(notice.rollout, None)
            return None
        known = self.watched.get(notice.rollout)
        if known is not None:
            return known
        update = self.words.update_number(notice.vendor, notice.product, notice.version)
        if not update:
            return None
        product = int(self.words.product_of[update])
        same = [w for w in self.watched.values() if w.product == product]
        if len(same) >= ROLLOUTS_PER_PRODUCT_MAX:
            del self.watched[min(same, key=lambda w: w.origin_s).notice.rollout]
        elif len(self.watched) >= ROLLOUTS_MAX:
            del self.watched[min(self.watched.values(), key=lambda w: w.origin_s).notice.rollout]
        made = self.restore(notice, at_ms)
        self._count([made], None)
        return made

    def restore(self, notice: RolloutNotice, watched_from_ms: int) -> Watched:
        """Watch a rollout without counting; the next `move_to` counts."""
        update = self.words.update_number(notice.vendor, notice.product, notice.version)
        used = {w.bit for w in self.watched.values()}
        bit = next(bit for bit in range(ROLLOUTS_MAX) if bit not in used)
        made = Watched(notice, update, int(self.words.product_of[update]), bit, watched_from_ms)
        self.watched[notice.rollout] = made
        return made

    def bits(self, updates: npt.NDArray[np.uint16]) -> tuple[Bits, Bits]:
        """Return of which watched rollouts' products devices have a version, and of which the very update.

        Args:
            updates: each device's updates, shape (n, any).
        """
        known = (len(self.words.updates.texts), *((w.update, w.bit) for w in self.watched.values()))
        if known != self._bits_of:
            # Few rollouts are watched mostly, and tables of 32 KB stay in the processor's nearest cache.
            few = all(watched.bit < 8 for watched in self.watched.values())
            self._member_bits = np.zeros(UPDATES_MAX, np.uint8 if few else np.uint64)
            self._exposed_bits = np.zeros_like(self._member_bits)
            for watched in self.watched.values():
                mask = self._member_bits.dtype.type(watched.mask)
                self._member_bits[self.words.product_of == watched.product] |= mask
                self._exposed_bits[watched.update] |= mask
            self._bits_of = known
        first = updates[:, 0]
        members, exposed = self._member_bits[first], self._exposed_bits[first]
        for slot in range(1, updates.shape[1]):
            one = updates[:, slot]
            members |= self._member_bits[one]
            exposed |= self._exposed_bits[one]
        return members, exposed

    def bases(self, rows: Rows) -> Places:
        """Return each device's place but for the arm, at the tables' minute; -1 where not at risk."""
        return self._bases(rows, self.minute_s)

    def _bases(self, rows: Rows, at_s: int) -> Places:
        cell = self.cells.numbers(rows, at_s, rows["heard"], rows["boot_at"])
        base = cell << 6
        base += self.cells.groups(rows) << 1
        base[cell < 0] = -1
        return base

    def exchange(self, before: Rows, after: Rows) -> None:
        """Take devices out of the tables as they were, and put them in as they are.

        Args:
            before: rows as the tables count them; a new device has an empty row, which counts nowhere.
            after: the same devices' rows now.
        """
        if not self.watched:
            return
        base_before, base_after = self.bases(before), self.bases(after)
        changed = (base_before != base_after) | (before["crashed"] != after["crashed"])
        changed |= (before["update"] != after["update"]).any(axis=1)
        if not changed.any():
            return
        before, after = before[changed], after[changed]
        base_before, base_after = base_before[changed], base_after[changed]
        members_before, exposed_before = self.bits(before["update"])
        members_after, exposed_after = self.bits(after["update"])
        crashed_before, crashed_after = before["crashed"], after["crashed"]
        concerned = int(np.bitwise_or.reduce(members_before | members_after))
        for watched in self.watched.values():
            if not concerned & int(watched.mask):
                continue
            watched.exposed_total += watched.exposed_in(exposed_after) - watched.exposed_in(exposed_before)
            was = watched.places(base_before, members_before, exposed_before, crashed_before)
            now = watched.places(base_after, members_after, exposed_after, crashed_after)
            moved = was != now
            if moved.any():
                watched.moved = True
                out, into = was[moved], now[moved]
                np.subtract.at(watched.table, out[out >= 0], 1)
                np.add.at(watched.table, into[into >= 0], 1)

    def move_to(self, minute_s: int, minutes: Minutes | None = None) -> dict[str, list[HeardMinute]]:
        """Count all tables afresh as of `minute_s`, and with the same pass the strata of `minutes`.

        Args:
            minute_s: seconds since the epoch.
            minutes: which minute ended and which fell due, if they are to be judged.

        Returns:
            The strata by rollout.
        """
        self.minute_s = minute_s
        self._count(list(self.watched.values()), minutes)
        return {} if minutes is None else minutes.strata()

    def _count(self, counted: list[Watched], minutes: Minutes | None) -> None:
        for one in counted:
            one.table = np.zeros(PLACES, np.int64)
            one.moved = True
            one.exposed_total = 0
        if not counted:
            return
        for rows in scan(self._fleet):
            base = self.bases(rows)
            members, exposed = self.bits(rows["update"])
            crashed = rows["crashed"].copy()
            for one in counted:
                places = one.places(base, members, exposed, crashed)
                one.table += np.bincount(places + 1, minlength=PLACES + 1)[1:]
                one.exposed_total += one.exposed_in(exposed)
            heard = rows["heard"].copy()
            for minute in () if minutes is None else minutes.due:
                lately = np.flatnonzero((heard >= minute.begin_s) & (heard < minute.end_s))
                if len(lately):
                    some = rows[lately]
                    then = self.bits(np.where(some["since"] < minute.end_s, some["update"], 0))[1]
                    minute.add(self._bases(some, minute.end_s), members[lately], then, some["crashed"], counted)

    def changes(self, watched: Watched) -> list[AtRisk]:
        """Return the counts that changed since they were last said, and note them as said."""
        if watched.full:
            places = np.flatnonzero(watched.table)
        elif watched.moved:
            places = np.flatnonzero(watched.table != watched.said)
        else:
            return []
        watched.moved = False
        watched.said = watched.table.copy()
        if len(places) == 0:
            return []
        pairs = np.unique(places >> 1)
        both = watched.table.reshape(-1, 2)[pairs]
        texts = self.cells.texts
        return [
            AtRisk(texts[pair >> 5], pair & 31, exposed, control)
            for pair, (control, exposed) in zip(pairs.tolist(), both.tolist(), strict=True)
        ]


def scan(fleet: Fleet) -> Iterator[Rows]:
    """Yield all devices' rows in bounded parts, not to be changed; empty rows are left out."""
    rows = fleet.rows
    for start in range(0, len(rows), _SCAN_ROWS):
        part = rows[start : start + _SCAN_ROWS]
        picked = part["key"] != 0
        yield part if picked.all() else part[picked]
