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

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[Any]


def admit_sequence(rows: Rows, seq: npt.NDArray[np.uint64]) -> Mask:
    """Tell which reports are new by their device's sliding window of 64 numbers, and note them in `rows`.

    A number is a duplicate when it was seen, or lies 64 or more behind the highest seen: it may have been.
    A device that was never heard accepts any number.
    """
    top, bits = rows["seq_top"].copy(), rows["seq_bits"].copy()
    first = (bits == 0) & (rows["heard"] == 0)
    ahead = seq > top
    jump = np.where(ahead, seq - top, np.uint64(0))
    behind = np.where(ahead, np.uint64(0), top - seq)
    far = jump >= WINDOW
    shifted = np.where(far, np.uint64(0), bits << np.minimum(jump, np.uint64(WINDOW - 1)))
    bit = np.uint64(1) << np.minimum(behind, np.uint64(WINDOW - 1))
    fresh: Mask = first | ahead | ((behind < WINDOW) & ((bits & bit) == 0))
    rows["seq_bits"] = np.where(
        first, np.uint64(1), np.where(ahead, shifted | np.uint64(1), np.where(fresh, bits | bit, bits))
    )
    rows["seq_top"] = np.where(first | ahead, seq, top)
    return fresh


def refresh(rows: Rows, columns: Columns, boots: bool) -> None:
    """Take what the newest report says of its device: where it stands, when it was heard, when it booted.

    Args:
        rows: rows of the devices.
        columns: one report each.
        boots: whether `columns.boot_at` is the current boot (a crash report names the boot that crashed).
    """
    newer = columns.at >= rows["heard"]
    for name in ("os_build", "form", "model", "ring", "tenant"):
        rows[name] = np.where(newer, getattr(columns, name), rows[name])
    fresh_boot = newer if boots else newer & (rows["boot_at"] == 0)
    rows["boot_at"] = np.where(fresh_boot, columns.boot_at, rows["boot_at"])
    rows["heard"] = np.where(newer, columns.at, rows["heard"])


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


def set_update(rows: Rows, slot: Numbers, update: Numbers, at: Numbers, bit: int) -> None:
    """Note that each device is on `update` (offered, installed, pushed or named, by `bit`) since `at` at the latest.

    A word older than the one that set another update is ignored; an older word of the same update moves `since` back.
    """
    place = np.flatnonzero(slot >= 0)
    column = slot[place]
    now, since = rows["update"][place, column], rows["since"][place, column]
    same = now == update[place]
    taken = same | (now == 0) | (at[place] >= since)
    place, column, now, since, same = place[taken], column[taken], now[taken], since[taken], same[taken]
    rows["base"][place, column] = np.where(same, rows["base"][place, column], now)
    rows["update"][place, column] = update[place]
    rows["since"][place, column] = np.where(same, np.minimum(since, at[place]), at[place])
    state = rows["state"][place, column]
    rows["state"][place, column] = np.where(same, state | bit, bit)


def set_listed(rows: Rows, slot: Numbers, update: Numbers, at: Numbers) -> None:
    """Note a check-in's word that each device has `update` on its disk.

    The base version of a device that was offered a newer one changes nothing: it counts as exposed from the offer on.
    """
    known = slot >= 0
    safe = np.where(known, slot, 0)
    every = np.arange(len(rows))
    pending = (rows["base"][every, safe] == update) & ((rows["state"][every, safe] & (OFFERED | PUSHED | NAMED)) != 0)
    waiting = pending & ((rows["state"][every, safe] & INSTALLED) == 0)
    set_update(rows, np.where(waiting, -1, slot), update, at, LISTED)


def apply_updates(rows: Rows, columns: Columns, product_of: Numbers, kept: Mask) -> None:
    """Apply the updates that `offered` and `installed` reports name."""
    named = np.flatnonzero(columns.update)
    if len(named) == 0:
        return
    part, update = rows[named], columns.update[named]
    slot = slot_of(part, product_of[update], product_of, kept)
    installed = columns.installed[named]
    for bit, which in ((OFFERED, ~installed), (INSTALLED, installed)):
        set_update(part, np.where(which, slot, -1), update, columns.at[named], bit)
    rows[named] = part


def apply_inventories(
    rows: Rows, columns: Columns, inventories: list[tuple[int, ...]], product_of: Numbers, kept: Mask
) -> None:
    """Apply the sets of versions that check-ins carry; equal sets are applied together.

    Of a set with more products than a row has room for, those under watch come first.
    """
    carried = np.flatnonzero(columns.inventory)
    if len(carried) == 0:
        return
    part, numbers, at = rows[carried], columns.inventory[carried], columns.at[carried]
    for number in np.unique(numbers).tolist():
        which = np.flatnonzero(numbers == number)
        some = part[which]
        updates = sorted(inventories[number], key=lambda update: not kept[product_of[update]])
        for update in updates[:SLOTS]:
            every = np.full(len(some), update, np.uint16)
            slot = slot_of(some, product_of[every], product_of, kept)
            set_listed(some, slot, every, at[which])
        part[which] = some
    rows[carried] = part


def rounds(numbers: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Split places of a batch so that no round holds a device twice, keeping each device's order.

    Args:
        numbers: row numbers, shape (n,).
    """
    order = np.argsort(numbers, kind="stable")
    ranked = numbers[order]
    starts = np.concatenate(([True], ranked[1:] != ranked[:-1]))
    if starts.all():
        return [np.arange(len(numbers))]
    begun = np.maximum.accumulate(np.where(starts, np.arange(len(numbers)), 0))
    turn = np.arange(len(numbers)) - begun
    return [np.sort(order[turn == k]) for k in range(int(turn.max()) + 1)]
