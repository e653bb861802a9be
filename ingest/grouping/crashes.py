"""Crash reports to first crashes: who was exposed, in which cell, and whether it is evidence of its own.

Called with the crashes of one step, after the step's activity. Each device's first crash since a rollout's origin
counts, in either arm; a boot loop is one crash, however many boots. Of the devices of one site only one crash in five
minutes is scored, for a power cut is not a driver. Crashes that a person asked for are stored and shown, never counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.grouping.cells import STALE_SECONDS, tenant_hash
from ingest.grouping.cohorts import Cohorts, Watched
from ingest.grouping.columns import BootLoop, Bsod, Columns, Dictionaries
from ingest.grouping.devices import NAMED, set_update, slot_of
from ingest.grouping.fleet import Rows
from ingest.signature import signature_of
from ingest.windows import FirstCrash

SITE_SECONDS = 300
SITES_MAX = 65_536
SIGNATURES_MAX = 4096
NEVER_HEARD = "*|*|*|old|stale"


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


class Sites:
    """When each site last had a crash that was scored; bounded to sites of the last five minutes."""

    def __init__(self) -> None:
        """Start with no site."""
        self.last: dict[str, int] = {}

    def scored(self, tenant: str, site: str, at_s: int) -> bool:
        """Tell whether a crash at `at_s` is its site's first in five minutes, and note it if so."""
        if not site:
            return True
        name = f"{tenant}\x00{site}"
        last = self.last.get(name)
        if last is not None and abs(at_s - last) < SITE_SECONDS:
            return False
        if len(self.last) >= SITES_MAX:
            self.last = {k: v for k, v in self.last.items() if at_s - v < SITE_SECONDS}
        if len(self.last) < SITES_MAX:
            self.last[name] = at_s
        return True


def name_updates(rows: Rows, crashes: Sequence[Bsod], words: Dictionaries, kept: npt.NDArray[np.bool_]) -> None:
    """Expose devices to the updates that their crash reports name as read from disk, for products under watch."""
    places: list[list[tuple[int, int, int]]] = []
    for place, crash in enumerate(crashes):
        turn = 0
        for version in crash.versions:
            update = words.update_number(version.vendor, version.product, version.version)
            if not kept[words.product_of[update]]:
                continue
            activated = crash.at_ms if version.activated_at_ms is None else min(version.activated_at_ms, crash.at_ms)
            if turn == len(places):
                places.append([])
            places[turn].append((place, update, max(activated, 0) // 1000))
            turn += 1
    for batch in places:
        place_, update_, since = (np.array(column) for column in zip(*batch, strict=True))
        part = rows[place_]
        slot = slot_of(part, words.product_of[update_], words.product_of, kept)
        set_update(part, slot, update_, since, NAMED)
        rows[place_] = part


def first_crashes(
    before: Rows,
    named: Rows,
    columns: Columns,
    crashes: Sequence[Bsod],
    signed: Sequence[Signed],
    scored: Sequence[bool],
    cohorts: Cohorts,
    words: Dictionaries,
) -> dict[str, list[FirstCrash]]:
    """Return each watched rollout's first crashes among these, in order.

    Args:
        before: rows as they were before these crashes: when last heard, whether crashed already.
        named: the same rows with the updates that the reports name.
        columns: the reports as columns; `boot_at` is the boot that crashed.
        crashes: the reports.
        signed: their signatures.
        scored: whether each is its site's first in five minutes.
        cohorts: the watched rollouts.
        words: the partition's dictionaries.
    """
    heard = np.minimum(before["heard"], columns.at)
    cell = cohorts.cells.numbers(named, columns.at, heard, columns.boot_at)
    group = cohorts.cells.groups(named)
    known = (before["heard"] > 0) & (cell >= 0)
    found: dict[str, list[FirstCrash]] = {}
    for watched in cohorts.watched.values():
        mine, exposed = _first(watched, before, named, columns.at, words)
        rows = []
        for place in np.flatnonzero(mine).tolist():
            crash = crashes[place]
            rows.append(
                FirstCrash(
                    crash.at_ms,
                    cohorts.cells.texts[int(cell[place])] if known[place] else NEVER_HEARD,
                    int(group[place]),
                    int(exposed[place]),
                    tenant_hash(crash.tenant),
                    signed[place].text,
                    bool(known[place]) and scored[place],
                    "boot_loop" if isinstance(crash, BootLoop) else "bsod",
                )
            )
        if rows:
            found[watched.notice.rollout] = rows
    return found


def _first(
    watched: Watched, before: Rows, named: Rows, at_s: npt.NDArray[Any], words: Dictionaries
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    member, _ = watched.arms(named, words)
    exposed = ((named["update"] == watched.update) & (named["since"] <= at_s[:, None])).any(axis=1)
    first = member & (before["crashed"] < watched.origin_s) & (at_s >= watched.origin_s)
    return first, exposed


def too_late(at_s: npt.NDArray[Any], watermark_ms: int) -> npt.NDArray[np.bool_]:
    """Tell which crashes lie further back than the history kept for comparison."""
    return at_s.astype(np.int64) < watermark_ms // 1000 - STALE_SECONDS
