"""Count tables: for each watched rollout, how many devices are at risk, by cell, tenant group and arm.

A table is always what a count over all rows would give at the table's minute: changes are applied by taking the rows as
they were out and the rows as they are in, and at every minute (when time since boot and recency move on) it is counted
afresh. Nothing is accumulated beside the fleet's state, so a table can't drift from it; a test recounts. Each rollout's
minutes begin at a second of its own, so that their full windows don't all come at once.

At risk in rollout r: has the product, heard from within 26 hours, no crash since r began. The origin is the same for
both arms: resetting only the exposed one forges evidence.

Each watched rollout has a bit of its own, so that one look at a device's updates tells its arm in all of them, and
whether it is exposed to the rollout's rivals, by which its cells are split.
"""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ingest.events import RolloutNotice
from ingest.grouping.cells import PLACES, Cells
from ingest.grouping.columns import UPDATES_MAX, Dictionaries
from ingest.grouping.fleet import Fleet, Rows, scan
from ingest.grouping.margins import Margins, Tables, empty_tables
from ingest.grouping.recovery import RecoveryTally
from ingest.grouping.rivals import ERAS_MAX, Era, era_at
from ingest.grouping.strata import Minutes
from ingest.minutes import minute_of, offset_seconds
from ingest.windows import AtRisk, MarginRisk, Recovering

ROLLOUTS_PER_PRODUCT_MAX = 4
ROLLOUTS_MAX = 64

Table = npt.NDArray[np.int64]
Bits = npt.NDArray[np.unsignedinteger[Any]]
Places = npt.NDArray[np.signedinteger[Any]]


class Watched:
    """One rollout under watch in one partition.

    Attributes:
        update: number of its update; a device on it is exposed.
        mask: its bit.
        watched_from_ms: watermark of the step that began watching.
        offset_s: the second at which its minutes begin.
        minute_s: the minute that its table stands at, seconds since the epoch.
        eras: how its cells were split, the newest last.
        table: devices at risk by place, as the newest era numbers cells.
        said: the table as it was last said.
        moved: whether the table was touched since then.
        full: whether the next window names every cell and margin.
        margins: devices at risk by margin, counted for a full window; None otherwise.
        uncounted: whether the table must be counted afresh before it is said.
        resumed: whether that is only because of a restart.
        exposed_total: devices exposed now, at risk or not.
        exposed_said: that number as it was last said.
        crash_total: first crashes admitted since the origin, both arms.
    """

    def __init__(
        self, notice: RolloutNotice, update: int, product: int, bit: int, watched_from_ms: int, cells: Cells
    ) -> None:
        """Begin watching, with whole cells; the table is empty until counted."""
        self.notice = notice
        self.update = update
        self.product = product
        self.mask = 1 << bit
        self.bit = bit
        self.origin_s = notice.origin_ms // 1000
        self.watched_from_ms = watched_from_ms
        self.offset_s = offset_seconds(notice.rollout)
        self.minute_s = minute_of(watched_from_ms // 1000, self.offset_s)
        self.eras = [Era(cells, 0)]
        self.table: Table = np.zeros(PLACES, np.int64)
        self.said: Table = np.zeros(PLACES, np.int64)
        self.moved = True
        self.full = True
        self.margins: Tables | None = None
        self.recovery: RecoveryTally | None = None
        self.uncounted = True
        self.resumed = False
        self.exposed_total = 0
        self.exposed_said = -1
        self.crash_total = 0

    @property
    def era(self) -> Era:
        """How its cells are split now."""
        return self.eras[-1]

    @property
    def age(self) -> tuple[int, str]:
        """What orders rollouts from the oldest to the youngest."""
        return self.notice.origin_ms, self.notice.rollout

    def begin(self, era: Era) -> None:
        """Split the cells in another way from now on; the table is empty until counted."""
        self.load([*self.eras, era][-ERAS_MAX:])
        self.full = self.uncounted = True
        self.resumed = False

    def load(self, eras: list[Era]) -> None:
        """Take over how cells were split; the table is empty until counted."""
        self.eras = eras
        self.table = np.zeros(self.era.places, np.int64)

    def exposed_in(self, exposed: Bits) -> int:
        """Return how many devices are exposed, at risk or not."""
        return int(np.count_nonzero(exposed & self.mask))

    def places(self, base: Places, members: Bits, exposed: Bits, crashed: npt.NDArray[np.uint32]) -> Places:
        """Return each device's place in whole cells, -1 where it is not at risk in this rollout."""
        counts = ((members & self.mask) != 0) & (base >= 0) & (crashed < self.origin_s)
        places: Places = np.where(counts, base + ((exposed & self.mask) != 0), -1)
        return places


class Cohorts:
    """The count tables of one partition.

    Attributes:
        now_s: up to when the steps have come, seconds since the epoch; 0 before the first.
    """

    def __init__(self, fleet: Fleet, words: Dictionaries, cells: Cells) -> None:
        """Make an empty set of tables over `fleet`."""
        self.fleet = fleet
        self.words = words
        self.cells = cells
        self.margins = Margins(words)
        self.watched: dict[str, Watched] = {}
        self.now_s = 0
        self._member_bits: Bits = np.zeros(UPDATES_MAX, np.uint8)
        self._exposed_bits: Bits = np.zeros(UPDATES_MAX, np.uint8)
        self._bits_of: object = None

    def watch(self, notice: RolloutNotice, at_ms: int) -> Watched | None:
        """Begin watching a rollout, or take a later notice of it; None when it can't be watched or is over.

        The oldest rollout of a product makes room for its fifth; beyond `ROLLOUTS_MAX` the oldest of all does. Those
        that nobody declared go first, and one of them never takes the place of a declared one: whoever invents versions
        pushes out nothing but inventions. A later notice never moves the origin: the crashes already told were counted
        from it.
        """
        if notice.closed:
            self._forget(notice.rollout, at_ms)
            return None
        known = self.watched.get(notice.rollout)
        if known is not None:
            if notice.declared is True and known.notice.declared is not True:
                known.notice = msgspec.structs.replace(known.notice, declared=True)
            return known
        update = self.words.update_number(notice.vendor, notice.product, notice.version)
        if not update:
            return None
        product = int(self.words.product_of[update])
        same = [w for w in self.watched.values() if w.product == product]
        crowd = same if len(same) >= ROLLOUTS_PER_PRODUCT_MAX else list(self.watched.values())
        if len(same) >= ROLLOUTS_PER_PRODUCT_MAX or len(crowd) >= ROLLOUTS_MAX:
            leaves = min(crowd, key=lambda w: (w.notice.declared is True, w.origin_s))
            if leaves.notice.declared is True and notice.declared is not True:
                return None
            self._forget(leaves.notice.rollout, at_ms)
        made = self.restore(notice, at_ms)
        # Cells are numbered as the fleet stands now, before the step's reports: so did the release before, and state
        # that goes back and forth between releases is the same.
        for rows in scan(self.fleet):
            self._bases(rows, made.minute_s)
        return made

    def _forget(self, name: str, at_ms: int) -> None:
        """Stop watching a rollout; it is nobody's rival from the second after `at_ms` on."""
        gone = self.watched.pop(name, None)
        if gone is None:
            return
        self.margins.keep({watched.product for watched in self.watched.values()})
        for watched in self.watched.values():
            left = [rival for rival in watched.era.rivals if rival.rollout != name]
            if len(left) < len(watched.era.rivals):
                watched.begin(Era(self.cells, at_ms // 1000 + 1, left))

    def restore(self, notice: RolloutNotice, watched_from_ms: int) -> Watched:
        """Watch a rollout; its table is counted when the step that begins it is said."""
        update = self.words.update_number(notice.vendor, notice.product, notice.version)
        used = {w.bit for w in self.watched.values()}
        bit = next(bit for bit in range(ROLLOUTS_MAX) if bit not in used)
        made = Watched(notice, update, int(self.words.product_of[update]), bit, watched_from_ms, self.cells)
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

    def splits(self, era: Era, updates: npt.NDArray[np.uint16], exposed: Bits) -> npt.NDArray[np.int16]:
        """Return by which of an era's rivals each device's cell is split: a number from 0 to 3, shape (n,).

        Args:
            era: of one rollout.
            updates: each device's updates, shape (n, any).
            exposed: of which watched rollouts that is the very update, shape (n,).
        """
        found = np.zeros(len(updates), np.int16)
        for bit, rival in enumerate(era.rivals):
            watched = self.watched.get(rival.rollout)
            # Former rivals of earlier eras have no bit any more.
            on = (updates == rival.update).any(axis=1) if watched is None else (exposed & watched.mask) != 0
            found[on] += 1 << bit
        return found

    def _bases(self, rows: Rows, at_s: int) -> Places:
        """Return each device's place but for the arm, at a minute; -1 where not at risk."""
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
        changed = self._moved(before, after)
        if not changed.any():
            return
        before, after = before[changed], after[changed]
        members_before, exposed_before = self.bits(before["update"])
        members_after, exposed_after = self.bits(after["update"])
        crashed_before, crashed_after = before["crashed"], after["crashed"]
        concerned = int(np.bitwise_or.reduce(members_before | members_after))
        bases: dict[int, tuple[Places, Places]] = {}
        for watched in self.watched.values():
            if not concerned & int(watched.mask):
                continue
            at_s = watched.minute_s
            if at_s not in bases:
                bases[at_s] = self._bases(before, at_s), self._bases(after, at_s)
            base_before, base_after = bases[at_s]
            watched.exposed_total += watched.exposed_in(exposed_after) - watched.exposed_in(exposed_before)
            was = watched.places(base_before, members_before, exposed_before, crashed_before)
            now = watched.places(base_after, members_after, exposed_after, crashed_after)
            if watched.era.rivals:
                was = watched.era.split(was, self.splits(watched.era, before["update"], exposed_before))
                now = watched.era.split(now, self.splits(watched.era, after["update"], exposed_after))
            moved = was != now
            if moved.any():
                watched.moved = True
                out, into = was[moved], now[moved]
                np.subtract.at(watched.table, out[out >= 0], 1)
                np.add.at(watched.table, into[into >= 0], 1)

    def _moved(self, before: Rows, after: Rows) -> npt.NDArray[np.bool_]:
        """Tell which devices may count otherwise now in some table."""
        # Time since boot and recency only grow: a device whose place is one and the same at the first and the last of
        # the tables' minutes has that place at all of them.
        marks = {watched.minute_s for watched in self.watched.values()}
        first, last = min(marks), max(marks)
        was, now = self._bases(before, first), self._bases(after, first)
        moved: npt.NDArray[np.bool_] = (was != now) | (before["crashed"] != after["crashed"])
        moved |= (before["update"] != after["update"]).any(axis=1)
        if last > first:
            moved |= (self._bases(before, last) != was) | (self._bases(after, last) != now)
        return moved

    def begin_minutes(self, now_s: int) -> list[int]:
        """Move to `now_s` the tables whose minute has passed, uncounted then; return their minutes in order."""
        self.now_s = now_s
        begun = set()
        for watched in self.watched.values():
            minute_s = minute_of(now_s, watched.offset_s)
            if minute_s != watched.minute_s:
                watched.minute_s = minute_s
                watched.full = watched.uncounted = True
                watched.resumed = False
                begun.add(minute_s)
        return sorted(begun)

    def resume(self, now_s: int) -> None:
        """Begin after a restart: tables stand at their minutes, and are counted when the next step is said."""
        self.now_s = now_s
        for watched in self.watched.values():
            watched.minute_s = minute_of(now_s, watched.offset_s)
            watched.uncounted = True
            # What a product keeps apart is extended at minutes only, so that a restart changes nothing in it.
            watched.resumed = self.margins.knows(watched.product)

    def count(self, minutes: Minutes | None = None, overdue_s: int = 900) -> None:
        """Count afresh the tables that must be, margins and recovery, and by the same pass the strata of `minutes`."""
        counted = [watched for watched in self.watched.values() if watched.uncounted]
        for one in counted:
            one.table = np.zeros(one.era.places, np.int64)
            one.margins = empty_tables()
            one.recovery = RecoveryTally(one.update, one.origin_s, one.minute_s, overdue_s)
            one.moved = True
            one.exposed_total = 0
        for rows in scan(self.fleet) if counted else ():
            members, exposed = self.bits(rows["update"])
            self._count_rows(rows, members, exposed, counted)
            if minutes is not None:
                self._count_strata(rows, members, counted, minutes)
        for one in counted:
            one.uncounted = one.resumed = False

    def _count_rows(self, rows: Rows, members: Bits, exposed: Bits, counted: list[Watched]) -> None:
        crashed, bases = rows["crashed"].copy(), dict[int, Places]()
        for one in counted:
            if one.minute_s not in bases:
                bases[one.minute_s] = self._bases(rows, one.minute_s)
            places = one.places(bases[one.minute_s], members, exposed, crashed)
            if one.margins is not None:
                self.margins.count(one.product, rows, places, one.margins, meet=not one.resumed)
            if one.era.rivals:
                places = one.era.split(places, self.splits(one.era, rows["update"], exposed))
            if one.recovery is not None:
                one.recovery.add(rows)
            one.table += counted_at(places, len(one.table))
            one.exposed_total += one.exposed_in(exposed)

    def _count_strata(self, rows: Rows, members: Bits, counted: list[Watched], minutes: Minutes) -> None:
        heard = rows["heard"].copy()
        for minute in minutes.due:
            concerned = [one for one in counted if one.minute_s == minute.told_s]
            lately = np.flatnonzero((heard >= minute.begin_s) & (heard < minute.end_s))
            if len(lately) == 0:
                continue
            some = rows[lately]
            updates = np.where(some["since"] < minute.end_s, some["update"], 0)
            base, then = self._bases(some, minute.end_s), self.bits(updates)[1]
            for one in concerned:
                places = one.places(base, members[lately], then, some["crashed"])
                era = era_at(one.eras, minute.end_s)
                if era.rivals:
                    places = era.split(places, self.splits(era, updates, then))
                minute.add(one.notice.rollout, era, places)

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
        text = watched.era.text
        return [
            AtRisk(text(pair >> 5), pair & 31, exposed, control)
            for pair, (control, exposed) in zip(pairs.tolist(), both.tolist(), strict=True)
        ]

    def margins_said(self, watched: Watched) -> list[MarginRisk]:
        """Return the margins that were counted for a full window, once; nothing otherwise."""
        tables, watched.margins = watched.margins, None
        return [] if tables is None else self.margins.said(watched.product, tables)

    def recovery_said(self, watched: Watched) -> list[Recovering]:
        """Return who comes back, as counted for a full window, once; nothing otherwise."""
        tally, watched.recovery = watched.recovery, None
        return [] if tally is None else tally.said(self.words.rings.texts, self.words.tenants.texts)


def counted_at(places: Places, size: int) -> Table:
    """Return how many devices there are at each place, shape (size,); -1 is nowhere."""
    table: Table = np.bincount(np.add(places, 1, dtype=np.intp), minlength=size + 1)[1:]
    return table
