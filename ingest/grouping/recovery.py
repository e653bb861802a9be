"""How devices of a rollout come back, by ring and tenant: silent, looping, or recovered; counted with each full window.

Counted in the pass that counts the tables afresh, from the rows alone. A device is of the rollout while it is on its
update, and stays so when it is put on another version: that is how many recover. *Silent* is who was heard from within
a quarter of an hour before it was exposed, or later, and not since for the overdue time; *looping* who crashed since it
was exposed and has not been quiet for as long; *recovered* who crashed, was heard from after it, and has been quiet.

A bounded number of rows is said: tenants beyond it are one row a ring.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ingest.grouping.fleet import Rows
from ingest.tenancy import tenant_hash
from ingest.windows import Recovering

ROWS_MAX: Final = 64
LATELY_S: Final = 900
_SILENT, _LOOPING, _RECOVERED = 0, 1, 2
_TENANT_BITS: Final = 16

Numbers = npt.NDArray[Any]


class RecoveryTally:
    """Devices that are silent, looping or recovered, of one rollout at one minute."""

    def __init__(self, update: int, origin_s: int, now_s: int, overdue_s: int) -> None:
        """Start with nobody.

        Args:
            update: the rollout's number.
            origin_s: since when crashes count, seconds since the epoch.
            now_s: the minute.
            overdue_s: how long after its last word a device is silent.
        """
        self._update, self._origin_s, self._now_s, self._overdue_s = update, origin_s, now_s, overdue_s
        # (ring, tenant) as one number, to how many are silent, looping, recovered.
        self._counts: dict[int, list[int]] = {}

    def add(self, rows: Rows) -> None:
        """Count some devices' rows, shape (n,)."""
        # Most were heard lately and never crashed: the dearer look at their updates is spared.
        told = (rows["crashed"] >= self._origin_s) | (rows["heard"] <= self._now_s - self._overdue_s)
        if not told.any():
            return
        rows = rows[told]
        on = rows["update"] == self._update
        here = on.any(axis=1)
        of = here | (rows["base"] == self._update).any(axis=1)
        if not of.any():
            return
        rows, on, here = rows[of], on[of], here[of]
        # Whoever has moved on to another version was exposed at some time since the origin.
        since = np.maximum(np.where(here, np.where(on, rows["since"], 0).max(axis=1), 0), self._origin_s)
        heard, crashed = rows["heard"].astype(np.int64), rows["crashed"].astype(np.int64)
        hit = crashed >= since
        silent = (self._now_s - heard >= self._overdue_s) & (hit | (here & (heard + LATELY_S >= since)))
        recovered = hit & ~silent & (heard > crashed) & (self._now_s - crashed >= self._overdue_s)
        counted = np.flatnonzero(hit | silent)
        state = np.where(silent, _SILENT, np.where(recovered, _RECOVERED, _LOOPING))[counted]
        where = (rows["ring"][counted].astype(np.int64) << _TENANT_BITS) | rows["tenant"][counted]
        keys, counts = np.unique(where << 2 | state, return_counts=True)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            self._counts.setdefault(key >> 2, [0, 0, 0])[key & 3] += count

    def said(self, rings: list[str], tenants: list[str]) -> list[Recovering]:
        """Return the counts as they go on the wire, the largest first; the smallest tenants' of a ring together.

        Args:
            rings: texts by number.
            tenants: likewise.
        """
        ranked = sorted(self._counts.items(), key=lambda one: (-sum(one[1]), one[0]))
        rest: dict[int, list[int]] = {}
        for place, counts in ranked[ROWS_MAX:]:
            sums = rest.setdefault(place >> _TENANT_BITS, [0, 0, 0])
            sums[:] = [a + b for a, b in zip(sums, counts, strict=True)]
        mask = (1 << _TENANT_BITS) - 1
        return [
            *(Recovering(rings[place >> _TENANT_BITS], tenant_hash(tenants[place & mask]), *counts)
              for place, counts in ranked[:ROWS_MAX]),
            *(Recovering(rings[ring], 0, *counts) for ring, counts in sorted(rest.items())),
        ]  # fmt: skip
