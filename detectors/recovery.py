"""How devices of a rollout come back: what partitions say, put together for the verdict.

Grouping counts, with each full window, who is silent, looping or recovered, by ring and tenant. No decision reads it:
it is for people, pages and vendors. Invariants: a partition's word replaces its word before; what goes into a verdict
is bounded, and its rows add up to its totals.
"""

from typing import Final

import msgspec

from ingest.windows import CohortWindow, Recovering

ROWS_MAX: Final = 64
# Back are so many of those that crashed or fell silent: more than this is never reached, for some are off by chance.
BACK_SHARE: Final = 0.99


class RecoveryRow(msgspec.Struct, kw_only=True, frozen=True):
    """One ring and tenant of a rollout.

    Attributes:
        ring: the devices' eligibility, by its name; empty where they name none.
        tenant: `#` and the tenant's hash in hexadecimal, as in a scope; empty for a ring's smaller tenants together.
        silent: devices not heard from when they should have been.
        looping: devices that crashed and were not quiet since.
        recovered: devices that crashed, were heard from since, and are quiet.
    """

    ring: str
    tenant: str = ""
    silent: int = 0
    looping: int = 0
    recovered: int = 0


class Recovery(msgspec.Struct, kw_only=True, frozen=True):
    """How a rollout's devices come back, at the latest full minute of each partition.

    Attributes:
        silent: of all rows.
        looping: of all rows.
        recovered: of all rows.
        rows: by ring and tenant, the largest first.
    """

    silent: int
    looping: int
    recovered: int
    rows: list[RecoveryRow] = []

    @property
    def away(self) -> int:
        """How many are not back."""
        return self.silent + self.looping

    @property
    def back(self) -> bool:
        """Whether almost all that crashed or fell silent are back; never where nobody has recovered."""
        return self.recovered > 0 and self.recovered >= BACK_SHARE * (self.recovered + self.away)


class RecoveryCounts:
    """What each partition said last of one rollout."""

    def __init__(self, said: dict[int, list[Recovering]] | None = None) -> None:
        """Begin with what `snapshot` gave, or with nothing."""
        self._said = dict(said or {})

    def state(self, partition: int, window: CohortWindow) -> None:
        """Take a partition's window; only full ones say anything."""
        if not window.full:
            return
        if window.recovery:
            self._said[partition] = window.recovery
        else:
            self._said.pop(partition, None)

    def report(self) -> Recovery | None:
        """Return the sums over partitions; None where nobody is silent, looping or recovered."""
        sums: dict[tuple[str, int], list[int]] = {}
        for rows in self._said.values():
            for row in rows:
                _add(sums, (row.ring, row.tenant), [row.silent, row.looping, row.recovered])
        if not sums:
            return None
        ranked = sorted(sums.items(), key=lambda one: (one[0][1] == 0, -sum(one[1]), one[0]))
        for place, counts in ranked[ROWS_MAX:]:
            del sums[place]
            _add(sums, (place[0], 0), counts)
        ordered = sorted(sums.items(), key=lambda one: (-sum(one[1]), one[0]))
        found = [
            RecoveryRow(ring=ring, tenant=f"#{tenant:x}" if tenant else "", silent=counts[0], looping=counts[1],
                        recovered=counts[2])
            for (ring, tenant), counts in ordered
        ]  # fmt: skip
        silent, looping, recovered = (sum(counts[place] for counts in sums.values()) for place in range(3))
        return Recovery(silent=silent, looping=looping, recovered=recovered, rows=found)

    def snapshot(self) -> dict[int, list[Recovering]]:
        """Return the state; counts made of it go on alike."""
        return dict(self._said)


def _add(sums: dict[tuple[str, int], list[int]], place: tuple[str, int], counts: list[int]) -> None:
    before = sums.setdefault(place, [0, 0, 0])
    before[:] = [a + b for a, b in zip(before, counts, strict=True)]
