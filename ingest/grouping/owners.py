"""Which tenant group is one tenant's alone in a partition, as its devices tell.

Counts go by tenant group, a hash of 32, and what one tenant's own devices show counts for him alone only where nobody
else is in his group. Kept beside the count tables, and made of the fleet's rows, which are never forgotten: whoever
reads a partition again says the same.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.grouping.columns import Dictionaries
from ingest.grouping.words import OTHER
from ingest.tenancy import tenant_group, tenant_hash

SEVERAL = 0
_TENANTS_MAX = 65_536
_TOLD_MAX = 256


class Owners:
    """The tenants whose devices have a row, by group."""

    def __init__(self, words: Dictionaries) -> None:
        """Begin with no tenant.

        Args:
            words: the partition's dictionaries; tenants are numbers of one of them.
        """
        self._words = words
        self._seen = np.zeros(_TENANTS_MAX, bool)
        self._owner: dict[int, int] = {}
        self._met = 0
        self._told: dict[str, int] = {}

    def meet(self, tenants: npt.NDArray[Any]) -> None:
        """Take the tenants of some rows, by number, shape (n,)."""
        fresh = tenants[~self._seen[tenants]]
        for number in np.unique(fresh).tolist() if len(fresh) else ():
            self._seen[number] = True
            # Rows of devices that were pushed to and never heard from have no tenant; beyond the dictionary's bound
            # tenants have no number, and nobody knows whose such a row is.
            if number == OTHER and len(self._words.tenants.texts) < _TENANTS_MAX:
                self._seen[number] = False
                continue
            text = self._words.tenants.texts[number]
            group, owner = tenant_group(text), SEVERAL if number == OTHER else tenant_hash(text)
            self._owner[group] = owner if group not in self._owner else SEVERAL
            self._met += 1

    def news(self, rollout: str, *, full: bool) -> list[tuple[int, int]]:
        """Return each group in use with the hash of its tenant, or `SEVERAL`, in order of the groups.

        Args:
            rollout: whose window it is for.
            full: the window says everything; any other says it once after a tenant was new, else nothing.
        """
        if not full and self._told.get(rollout) == self._met:
            return []
        self._told.pop(rollout, None)
        self._told[rollout] = self._met
        if len(self._told) > _TOLD_MAX:
            # The one that was spoken of longest ago is over, most likely; if not, it hears the same again.
            del self._told[next(iter(self._told))]
        return sorted(self._owner.items())
