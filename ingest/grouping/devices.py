"""What reports do to devices' rows: sequence windows, attributes, and which update each product is on.

Pure functions on arrays of rows (shape (n,), distinct devices) and columns of reports (same length, one report for each
row). Whoever has several reports of a device in one batch calls them round by round, in order.

Exposure counts from the earliest word: `offered`, the rollout system's push list, `installed`, or a crash that names
the version. Offered counts whether or not the activation followed.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.grouping.columns import Columns
from ingest.grouping.fleet import SLOTS, Rows

OFFERED, INSTALLED, PUSHED, NAMED, LISTED = 1, 2, 4, 8, 16
WINDOW = 64
# A reporter would have to send a million reports to fall this far behind itself: it began a new numbering.
RENUMBERED = 1 << 20

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[Any]


def admit_sequence(rows: Rows, seq: npt.NDArray[np.uint64], at: Numbers) -> tuple[Mask, Mask]:
    """Tell which reports are new by their device's sliding window of 64 numbers, and note them in `rows`.

    A number is a duplicate when it was seen, or lies 64 or more behind the highest seen: it may have been. A number
    more than `RENUMBERED` behind that comes with an event later than all heard is a reporter that was installed anew
    after its clock had once run ahead: its numbering starts there, or it would be deaf for ever.

    Args:
        rows: rows of the devices; one that was never heard accepts any number.
        seq: one number each.
        at: event times, seconds since the epoch.

    Returns:
        Which are new, and which of those are the newest of their device.
    """
    top, bits = rows["seq_top"].copy(), rows["seq_bits"].copy()
    ahead = (bits == 0) | (seq > top)
    if ahead.all() and (bits != 0).all() and (seq - top < WINDOW).all():
        rows["seq_bits"] = (bits << (seq - top)) | np.uint64(1)
        rows["seq_top"] = seq
        return ahead, ahead
    jump = np.where(seq > top, seq - top, np.uint64(0))
    behind = np.where(ahead, np.uint64(0), top - seq)
    anew = ~ahead & (behind > RENUMBERED) & (at > rows["heard"])
    ahead |= anew
    lost = (bits == 0) | anew | (jump >= WINDOW)
    shifted = np.where(lost, np.uint64(0), bits << np.minimum(jump, np.uint64(WINDOW - 1)))
    bit = np.uint64(1) << np.minimum(behind, np.uint64(WINDOW - 1))
    fresh: Mask = ahead | ((behind < WINDOW) & ((bits & bit) == 0))
    rows["seq_bits"] = np.where(ahead, shifted | np.uint64(1), np.where(fresh, bits | bit, bits))
    rows["seq_top"] = np.where(ahead, seq, top)
    return fresh, ahead


def refresh(rows: Rows, columns: Columns, newest: Mask, boots: bool) -> None:
    """Take what the newest report says of its device: where it stands, when it was heard, when it booted.

    Args:
        rows: rows of the devices.
        columns: one report each.
        newest: by sequence number; such a report counts whatever its clock says.
        boots: whether `columns.boot_at` is the current boot (a crash report names the boot that crashed).
    """
    heard = rows["heard"].copy()
    newer = newest | (columns.at >= heard)
    rows["heard"] = np.maximum(heard, columns.at)
    fresh_boot = newer if boots else newer & (rows["boot_at"] == 0)
    if newer.all():
        for name in ("os_build", "form", "model", "ring", "tenant"):
            rows[name] = getattr(columns, name)
    else:
        for name in ("os_build", "form", "model", "ring", "tenant"):
            rows[name] = np.where(newer, getattr(columns, name), rows[name])
    rows["boot_at"] = np.where(fresh_boot, columns.boot_at, rows["boot_at"])


def slot_of(rows: Rows, product: Numbers, product_of: Numbers, kept: Mask) -> Numbers:
    """Return the slot in which each row keeps `product`, making one free where needed; -1 where none can be.

    Args:
        rows: rows of the devices; a freed slot is emptied in place.
        product: product number for each row, not 0.
        product_of: product number by update number.
        kept: by product number, whether a rollout of it is under watch: such a slot is never given away.
    """
    held = product_of[rows["update"]]
    mine = held == product[:, None]
    slot = np.where(mine.any(axis=1), mine.argmax(axis=1), -1)
    for_free = slot < 0
    if for_free.any():
        empty = rows["update"] == 0
        has_empty = for_free & empty.any(axis=1)
        slot = np.where(has_empty, empty.argmax(axis=1), slot)
        giving = for_free & ~has_empty & kept[product]
        if giving.any():
            loose = ~kept[held]
            age = np.where(loose, rows["since"], np.iinfo(np.uint32).max)
            victim = np.where(loose.any(axis=1), age.argmin(axis=1), -1)
            slot = np.where(giving, victim, slot)
            wiped = np.flatnonzero(giving & (victim >= 0))
            for name in ("update", "base", "since", "state"):
                rows[name][wiped, slot[wiped]] = 0
    return slot


def set_update(rows: Rows, slot: Numbers, update: Numbers, at: Numbers, bit: int, newest: Mask) -> None:
    """Note that each device is on `update` (offered, installed, pushed, named or listed, by `bit`) since `at`.

    A word older than the one that set another update is ignored, unless it has the device's newest sequence number (its
    clock was set back), or the other update was only ever listed: a list says what is on the disk, and an offer or push
    counts whether or not the activation followed. An older word of the same update moves `since` back.
    """
    place = np.flatnonzero(slot >= 0)
    column, update, at, newest = slot[place], update[place], at[place], newest[place]
    now, since, state = rows["update"][place, column], rows["since"][place, column], rows["state"][place, column]
    same = now == update
    taken = same | (now == 0) | (at >= since) | newest
    if bit & (OFFERED | PUSHED):
        taken |= state == LISTED
    place, column, now, since, same = place[taken], column[taken], now[taken], since[taken], same[taken]
    at = at[taken]
    rows["base"][place, column] = np.where(same, rows["base"][place, column], now)
    rows["update"][place, column] = update[taken]
    rows["since"][place, column] = np.where(same, np.minimum(since, at), at)
    rows["state"][place, column] = np.where(same, state[taken] | bit, bit)


def set_on_disk(rows: Rows, slot: Numbers, update: Numbers, at: Numbers, bit: int, newest: Mask) -> None:
    """Note the word of a check-in (`bit` LISTED) or crash report (NAMED) that each device has `update` on its disk.

    A device that was offered or pushed a newer version, and has not yet said that it took it, still has the version
    before on its disk: that changes nothing, for it counts as exposed from the offer on. Where the version before was
    not known, it is now.
    """
    place = np.flatnonzero(slot >= 0)
    column, listed = slot[place], update[place]
    now, base, state = rows["update"][place, column], rows["base"][place, column], rows["state"][place, column]
    open_ = ((state & (OFFERED | PUSHED)) != 0) & ((state & (INSTALLED | NAMED)) == 0)
    waiting = open_ & (now != listed) & ((base == listed) | (base == 0))
    rows["base"][place[waiting], column[waiting]] = listed[waiting]
    slot = slot.copy()
    slot[place[waiting]] = -1
    set_update(rows, slot, update, at, bit, newest)


def apply_updates(rows: Rows, columns: Columns, newest: Mask, product_of: Numbers, kept: Mask) -> None:
    """Apply the updates that `offered` and `installed` reports name."""
    named = np.flatnonzero(columns.update)
    if len(named) == 0:
        return
    part, update = rows[named], columns.update[named]
    slot = slot_of(part, product_of[update], product_of, kept)
    installed = columns.installed[named]
    for bit, which in ((OFFERED, ~installed), (INSTALLED, installed)):
        set_update(part, np.where(which, slot, -1), update, columns.at[named], bit, newest[named])
    rows[named] = part


def apply_inventories(rows: Rows, columns: Columns, newest: Mask, product_of: Numbers, kept: Mask) -> None:
    """Apply the sets of versions that check-ins carry, one product of each at a time.

    Most say again what was listed before, which changes nothing. Of a set with more products than a row has room for,
    those under watch come first.
    """
    carried = np.flatnonzero(columns.inventory)
    if len(carried) == 0:
        return
    listed = np.zeros((len(columns.sets), SLOTS), np.uint16)
    for number, updates in enumerate(columns.sets):
        first = sorted(updates, key=lambda update: not kept[product_of[update]])[:SLOTS]
        listed[number, : len(first)] = first
    for turn in range(SLOTS):
        update = listed[columns.inventory[carried], turn]
        part, at = rows[carried], columns.at[carried]
        held = (part["update"] == update[:, None]) & ((part["state"] & LISTED) != 0) & (part["since"] <= at[:, None])
        tells = np.flatnonzero((update != 0) & ~held.any(axis=1))
        if len(tells):
            part, update, places = part[tells], update[tells], carried[tells]
            slot = slot_of(part, product_of[update], product_of, kept)
            set_on_disk(part, slot, update, at[tells], LISTED, newest[places])
            rows[places] = part


def updates_at(rows: Rows, at: Numbers) -> Numbers:
    """Return the updates that each device was on at a time, by slot, shape (n, SLOTS): the one before, if earlier."""
    return np.where(rows["since"] <= at[:, None], rows["update"], rows["base"])


def rounds(numbers: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Split places of a batch so that no round holds a device twice, keeping each device's order.

    Args:
        numbers: row numbers, shape (n,).
    """
    ranked = np.sort(numbers)
    starts = np.concatenate(([True], ranked[1:] != ranked[:-1]))
    if starts.all():
        return [np.arange(len(numbers))]
    order = np.argsort(numbers, kind="stable")
    begun = np.maximum.accumulate(np.where(starts, np.arange(len(numbers)), 0))
    turn = np.empty(len(numbers), np.int64)
    turn[order] = np.arange(len(numbers)) - begun
    by_turn = np.argsort(turn, kind="stable")
    return np.split(by_turn, np.cumsum(np.bincount(turn))[:-1])
