"""Cells: the circumstances that must be alike to compare, as small numbers computed for many devices at once.

A cell is OS build family, form factor, ring eligibility, time since boot and recency. Within it devices count by tenant
group. The number of a device's place in a count table is `cell * 64 + group * 2 + arm`.

Bands and recency are taken at a stated time (the minute that the table stands at), never at "now", so that a table kept
up to date change by change equals a table counted afresh from the rows.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.grouping.columns import Dictionaries
from ingest.grouping.fleet import Rows
from ingest.tenancy import GROUPS, tenant_group
from ingest.windows import BootBand, Recency

CELLS_MAX = 256
SPLITS = 3  # beside whole cells: those of devices exposed to one rival, to another, to both
PLACES = CELLS_MAX * GROUPS * 2
FRESH_SECONDS = 600
DAY_SECONDS = 86_400
RECENT_SECONDS = 900
STALE_SECONDS = 26 * 3600
_BANDS = (BootBand.FRESH, BootBand.DAY, BootBand.OLD)
_RECENCIES = (Recency.RECENT, Recency.STALE)
TIMES = len(_BANDS) * len(_RECENCIES)
# What is left of 256 is for coarse cells split by rivals, so that a rollout's cells can always be split.
BASE_CELLS_MAX = CELLS_MAX - SPLITS * TIMES
_FAMILIES, _FORMS, _RINGS = 32, 8, 64

Places = npt.NDArray[np.int16]


class Cells:
    """Numbers and texts of the cells that one partition has met.

    At most 238, which with coarse ones split by rivals makes 256: when they are used up, further circumstances share
    the coarse cells that keep only time since boot and recency. Which circumstances those are is decided by exposure
    alone (first come), never by outcomes.

    Attributes:
        texts: each cell's text, by number; the coarse cells are the first.
        times: each cell's time since boot and recency, as the number of the coarse cell that has only these.
    """

    def __init__(self, words: Dictionaries) -> None:
        """Start with the coarse cells only."""
        self._words = words
        self._number = np.full(_FAMILIES * _FORMS * _RINGS * TIMES, -1, np.int16)
        self._codes: list[int] = []
        self.texts: list[str] = []
        self.times = list(range(TIMES))
        for time in range(TIMES):
            self.texts.append("|".join(("*", "*", "*", *self._time_text(time))))
        self._group_of_tenant = np.zeros(65_536, np.uint8)
        self._tenants_known = 0

    def numbers(
        self, rows: Rows, at_s: int | npt.NDArray[Any], heard: npt.NDArray[Any], boot_at: npt.NDArray[Any]
    ) -> Places:
        """Return each device's cell at `at_s`, given when it was last heard and booted; -1 where not at risk.

        Args:
            rows: device rows, shape (n,).
            at_s: seconds since the epoch, one for all or shape (n,).
            heard: seconds since the epoch, shape (n,).
            boot_at: seconds since the epoch, shape (n,).
        """
        # Differences of 32-bit times wrap to the right signed number, whatever the century.
        at = np.asarray(at_s, np.uint32)
        age, quiet = (at - boot_at).view(np.int32), (at - heard).view(np.int32)
        code = self._words.family_of[rows["os_build"]].astype(np.int32)
        code *= _FORMS
        code += rows["form"]
        code *= _RINGS
        code += rows["ring"]
        code *= len(_BANDS)
        code += age >= FRESH_SECONDS
        code += age >= DAY_SECONDS
        code *= len(_RECENCIES)
        code += quiet > RECENT_SECONDS
        cell: Places = self._number[code]
        if (cell < 0).any():
            self._meet(np.unique(code[cell < 0]).tolist())
            cell = self._number[code]
        cell[(quiet > STALE_SECONDS) | (heard == 0)] = -1
        return cell

    @property
    def codes(self) -> list[int]:
        """The circumstances met, in the order of their cells' numbers, without the coarse cells."""
        return self._codes

    def load(self, codes: list[int]) -> None:
        """Meet the circumstances of a snapshot, in their order."""
        self._meet(codes)

    def groups(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """Return each device's tenant group."""
        return self.groups_of(rows["tenant"])

    def groups_of(self, tenants: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
        """Return the groups of tenants by number."""
        texts = self._words.tenants.texts
        for number in range(self._tenants_known, len(texts)):
            self._group_of_tenant[number] = tenant_group(texts[number])
        self._tenants_known = len(texts)
        groups: npt.NDArray[np.uint8] = self._group_of_tenant[tenants]
        return groups

    def _meet(self, codes: list[int]) -> None:
        for code in codes:
            if len(self.texts) >= BASE_CELLS_MAX:
                self._number[code] = code % TIMES
                continue
            self._number[code] = len(self.texts)
            self._codes.append(code)
            rest, time = divmod(code, TIMES)
            self.times.append(time)
            rest, ring = divmod(rest, _RINGS)
            family, form = divmod(rest, _FORMS)
            words = self._words
            names = (words.families.texts[family], words.forms.texts[form], words.rings.texts[ring])
            self.texts.append(
                "|".join((*(name.replace("|", "_") or "other" for name in names), *self._time_text(time)))
            )

    @staticmethod
    def _time_text(time: int) -> tuple[str, str]:
        band, recency = divmod(time, len(_RECENCIES))
        return _BANDS[band], _RECENCIES[recency]
