"""Crash reports to first crashes: who was exposed, in which cell, and whether it is evidence of its own.

Called with the crashes of one step, after the step's activity. Each device's first crash since a rollout's origin
counts, in either arm; a boot loop is one crash, however many boots. Of the devices of one site only one crash in five
minutes is scored, for a power cut is not a driver. Crashes that a person asked for are stored and shown, never counted.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ingest.grouping.cells import STALE_SECONDS, TIMES
from ingest.grouping.cohorts import Bits, Cohorts, Watched
from ingest.grouping.columns import BootLoop, Bsod, Columns
from ingest.grouping.devices import NAMED, Mask, set_on_disk, slot_of, updates_at
from ingest.grouping.fleet import Rows
from ingest.grouping.rivals import era_at
from ingest.signature import Frame, signature_of, telling_frames
from ingest.tenancy import tenant_hash
from ingest.windows import FirstCrash

SITE_SECONDS = 300
SITES_MAX = 8192
SIGNATURES_MAX = 4096
FRAMES_CACHED_MAX = 1024
NEVER_HEARD = TIMES - 1  # the coarse cell `*|*|*|old|stale`


@dataclass(slots=True)
class Signed:
    """A crash's signature, version-free, and whether a person asked for the crash."""

    text: str
    deliberate: bool


class Signatures:
    """A bounded cache of signatures: a fault repeats, and naming one takes ten microseconds."""

    def __init__(self) -> None:
        """Start empty."""
        self._known: dict[tuple[object, ...], Signed] = {}

    def of(self, crash: Bsod) -> Signed:
        """Return the signature of a crash at grain module and bugcheck."""
        key = (crash.bugcheck, crash.module, *(frame.module for frame in crash.frames))
        known = self._known.get(key)
        if known is None:
            made = signature_of(crash.bugcheck, crash.parameters, crash.frames, crash.module)
            known = Signed(made.module_bugcheck, made.deliberate)
            if len(self._known) >= SIGNATURES_MAX:
                self._known.clear()
            self._known[key] = known
        return known


@functools.lru_cache(FRAMES_CACHED_MAX)
def _places_told(frames: tuple[tuple[str, int], ...]) -> list[str]:
    """Return the frames that a first crash tells; a fault repeats, and telling its places takes five microseconds."""
    return telling_frames([Frame(module, offset) for module, offset in frames])


class Sites:
    """When each site last had a crash that was scored; the sites longest without one make room."""

    def __init__(self) -> None:
        """Start with no site."""
        self.last: dict[int, int] = {}

    def scored(self, tenant: str, site: str, at_s: int) -> bool:
        """Tell whether a crash at `at_s` is its site's first in five minutes, and note it if so."""
        if not site:
            return True
        name = hashlib.blake2b(f"{tenant}\x00{site}".encode(), digest_size=8, person=b"site").digest()
        number = int.from_bytes(name, "big")
        last = self.last.get(number)
        if last is not None and abs(at_s - last) < SITE_SECONDS:
            return False
        self.last.pop(number, None)
        if len(self.last) >= SITES_MAX:
            del self.last[next(iter(self.last))]
        self.last[number] = at_s
        return True


@dataclass(slots=True)
class Named:
    """By crash, as bits of watched rollouts: of whose product, and of whose update, its report names a version."""

    members: Bits
    exposed: Bits

    def take(self, places: npt.NDArray[np.int64]) -> "Named":
        """Return what is named at some places."""
        return Named(self.members[places], self.exposed[places])


def name_updates(
    rows: Rows, columns: Columns, crashes: Sequence[Bsod], newest: Mask, cohorts: Cohorts, kept: Mask
) -> Named:
    """Note the updates that crash reports name as read from disk, for products under watch (`kept`)."""
    words = cohorts.words
    named = Named(np.zeros(len(rows), np.uint64), np.zeros(len(rows), np.uint64))
    turns: list[list[tuple[int, int, int]]] = []
    for place, (crash, at_s) in enumerate(zip(crashes, columns.at.tolist(), strict=True)):
        turn = 0
        for version in crash.versions:
            update = words.update_number(version.vendor, version.product, version.version)
            if not kept[words.product_of[update]]:
                continue
            activated_s = at_s if version.activated_at_ms is None else version.activated_at_ms // 1000
            if turn == len(turns):
                turns.append([])
            turns[turn].append((place, update, max(0, min(activated_s, at_s))))
            turn += 1
    for batch in turns:
        places, updates, since = (np.array(column) for column in zip(*batch, strict=True))
        part = rows[places]
        slot = slot_of(part, words.product_of[updates], words.product_of, kept)
        set_on_disk(part, slot, updates, since, NAMED, newest[places])
        rows[places] = part
        members, exposed = cohorts.bits(updates[:, None])
        named.members[places] |= members
        named.exposed[places] |= exposed
    return named


def first_crashes(
    before: Rows,
    named: Named,
    columns: Columns,
    crashes: Sequence[Bsod],
    signed: Sequence[Signed],
    behind: Mask,
    cohorts: Cohorts,
    sites: Sites,
) -> dict[str, list[FirstCrash]]:
    """Return each watched rollout's first crashes among these, in order.

    A device counts as exposed by what was known of it at the time of the crash, or by what the report names; so a
    report that finds the version before on the disk, after a rollback, does not make its own crash a control's.

    Args:
        before: rows as they were before these crashes: when last heard, on which update, whether crashed already.
        named: what the reports name.
        columns: the reports as columns; `boot_at` is the boot that crashed.
        crashes: the reports.
        signed: their signatures.
        behind: which came when the watermark had passed them.
        cohorts: the watched rollouts.
        sites: which sites had a scored crash lately.
    """
    at = columns.at
    # Who is at risk goes by when it was heard of last. But that it has booted since is a word, too: whoever crashes at
    # boot is compared with those who have just booted, among whom nobody is stale.
    last_heard = np.minimum(before["heard"], at)
    cell = cohorts.cells.numbers(before, at, last_heard, columns.boot_at)
    alive = np.where(last_heard > 0, np.maximum(last_heard, np.minimum(columns.boot_at, at)), last_heard)
    cell = np.where(cell >= 0, cohorts.cells.numbers(before, at, alive, columns.boot_at), cell)
    known = (before["heard"] > 0) & (cell >= 0)
    group = cohorts.cells.groups(before)
    group = np.where(known, group, cohorts.cells.groups_of(columns.tenant))
    stood = before.copy()
    for name in ("os_build", "model"):
        stood[name] = np.where(known, before[name], getattr(columns, name))
    members = cohorts.bits(before["update"])[0] | named.members
    updates = updates_at(before, at)
    placed = Placed(np.where(known, cell, NEVER_HEARD), at, stood, updates, cohorts.bits(updates)[1] | named.exposed)
    firsts = {
        name: ((members & watched.mask) != 0) & (before["crashed"] < watched.origin_s) & (at >= watched.origin_s)
        for name, watched in cohorts.watched.items()
    }
    counted = np.logical_or.reduce(list(firsts.values())) if firsts else np.zeros(len(before), bool)
    rows = {}
    for place in np.flatnonzero(counted).tolist():
        crash, heard = crashes[place], bool(known[place])
        rows[place] = FirstCrash(
            crash.at_ms,
            "",
            int(group[place]),
            0,
            tenant_hash(crash.tenant),
            signed[place].text,
            heard and not behind[place] and sites.scored(crash.tenant, crash.site, int(at[place])),
            "boot_loop" if isinstance(crash, BootLoop) else "bsod",
            frames=_places_told(tuple((frame.module, frame.offset) for frame in crash.frames)),
        )
    return {
        name: _told(np.flatnonzero(first), rows, placed, cohorts, cohorts.watched[name])
        for name, first in firsts.items()
        if first.any()
    }


@dataclass(slots=True)
class Placed:
    """Where crashes happened, shapes (n,).

    Attributes:
        cell: number of the whole cell.
        at: seconds since the epoch.
        stood: the device's row, with the build and model it had.
        updates: which updates it was on, shape (n, any).
        exposed: of which watched rollouts that, or what the report names, is the very update.
    """

    cell: npt.NDArray[Any]
    at: npt.NDArray[Any]
    stood: Rows
    updates: npt.NDArray[np.uint16]
    exposed: Bits


def _told(
    places: npt.NDArray[np.int64], rows: dict[int, FirstCrash], placed: Placed, cohorts: Cohorts, watched: Watched
) -> list[FirstCrash]:
    """Return the crashes at some places as one rollout's: its arm, its cells, its product's margins."""
    cells = _cells(places, placed, cohorts, watched)
    margins = cohorts.margins.texts(watched.product, placed.stood[places])
    arms = ((placed.exposed[places] & watched.mask) != 0).astype(int).tolist()
    return [
        msgspec.structs.replace(rows[place], cell=cell, exposed=arm, build=build, model=model)
        for place, cell, arm, (build, model) in zip(places.tolist(), cells, arms, margins, strict=True)
    ]


def _cells(places: npt.NDArray[np.int64], placed: Placed, cohorts: Cohorts, watched: Watched) -> list[str]:
    """Return the texts of the cells at some places, split as they were when each crash happened."""
    numbers = placed.cell[places]
    eras = [era_at(watched.eras, at_s) for at_s in placed.at[places].tolist()]
    for era in {id(era): era for era in eras if era.rivals}.values():
        own = np.array([index for index, one in enumerate(eras) if one is era])
        some = places[own]
        splits = cohorts.splits(era, placed.updates[some], placed.exposed[some])
        numbers[own] = era.numbers(numbers[own], splits)
    return [era.text(number) for era, number in zip(eras, numbers.tolist(), strict=True)]


def too_late(at_s: npt.NDArray[Any], watermark_ms: int) -> Mask:
    """Tell which crashes lie further back than the history kept for comparison."""
    return at_s.astype(np.int64) < watermark_ms // 1000 - STALE_SECONDS
