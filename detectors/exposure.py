"""The exposed share at risk, bounded from above: whom the update may have reached without a word.

A machine that dies on loading the update never says `installed`. Where the rollout system declared a rule for a ring,
the rule bounds how many of a cell's devices are exposed; where every device says `offered` first, what is known is the
bound; where neither holds there is no bound, and without a bound there is no score.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ingest.rollouts import Bound, Ring, Rollout

Counts = npt.NDArray[np.int64]
_RING_FIELD: Final = 2
_ANY_RING: Final = ("*", "other", "")


def ring_of(cell: str) -> str:
    """Return the ring named in a cell's text, `family|form factor|ring|boot band|recency`; empty if there is none."""
    fields = cell.split("|")
    return fields[_RING_FIELD] if len(fields) > _RING_FIELD else ""


def reach(ring: Ring, at_ms: int) -> float:
    """Return the part of a ring that its push may have reached at `at_ms`, 0 to 1.

    It rises evenly over `over_seconds` from the start to the ring's share; 0 before the start.

    Example:
        >>> reach(Ring(name="canary", starts_at_ms=1_700_000_000_000, over_seconds=60, share=0.5), 1_700_000_030_000)
        0.25
    """
    if ring.starts_at_ms is None or at_ms < ring.starts_at_ms:
        return 0.0
    if ring.over_seconds <= 0:
        return ring.share
    return ring.share * min(1.0, (at_ms - ring.starts_at_ms) / (ring.over_seconds * 1000.0))


def upper_bound(known: Counts, control: Counts, reached: npt.NDArray[np.float64]) -> Counts:
    """Return the most devices that may be exposed: max(known, eligible * reach), all shapes (n,).

    `known` and `control` count the devices at risk as they are known; `eligible` is both together.
    """
    declared = np.ceil((known + control) * reached - 1e-9).astype(np.int64)
    return np.maximum(known, declared)


def share_upper(known: Counts, control: Counts, reached: float, crashed: bool) -> npt.NDArray[np.float64]:
    """Return the upper bound of the exposed share at risk where a ring is reached in part; who crashed counts in."""
    # Not rounded up: of a cell of three devices a rule that reaches half of a ring reaches one and a half on average.
    most = np.maximum(known, (known + control) * reached)
    exposed, others = most + crashed, np.maximum(known + control - most, not crashed)
    share: npt.NDArray[np.float64] = exposed / np.maximum(exposed + others, 1)
    return share


def share_known(known: float, control: float, crashed: bool) -> float:
    """Return the share of devices known to be exposed among those at risk; the one that crashed counts in its arm."""
    exposed, others = max(known, float(crashed)), max(control, float(not crashed))
    return exposed / max(exposed + others, 1.0)


class ExposureBound:
    """What one rollout's declaration says of its cells."""

    def __init__(self, rollout: Rollout | None, share_least: float = 0.0) -> None:
        """Read the declaration.

        Args:
            rollout: what was declared or discovered; None where nothing was yet.
            share_least: for an event in the exposed arm, a share counts as at least this much.
        """
        self.share_least = share_least
        self._rings = {ring.name: ring for ring in rollout.rings} if rollout is not None else {}
        self._starts = sorted(ring.starts_at_ms for ring in self._rings.values() if ring.starts_at_ms is not None)
        self._origin_ms = rollout.origin_ms if rollout is not None else 0
        # A declaration with neither rings nor lists declares nothing that could bound the share.
        says_nothing = (
            rollout is None
            or rollout.bound is Bound.NONE
            or (rollout.bound is Bound.DECLARED and not rollout.rings and not rollout.pushed_devices)
        )
        self.bounded = not says_nothing

    def reach_of(self, rings: Sequence[str], at_ms: int) -> npt.NDArray[np.float64]:
        """Return the share of each ring that may be exposed at `at_ms` for all that is known: shape (rings,).

        It is what the declared push may have reached; nothing where none was declared.
        """
        by_ring = {name: reach(ring, at_ms) for name, ring in self._rings.items()}
        # Cells whose ring is not told may hold devices of any ring: the furthest reach bounds them.
        furthest = max(by_ring.values(), default=0.0)
        by_ring.update(dict.fromkeys(_ANY_RING, furthest))
        return np.array([by_ring.get(ring, 0.0) for ring in rings], dtype=np.float64)

    def reached_all(self, cell: str, at_ms: int) -> bool:
        """Tell whether the push has reached every device of the cell, so that whoever crashes in it is exposed."""
        ring = self._rings.get(ring_of(cell))
        return ring is not None and math.isclose(reach(ring, at_ms), 1.0)

    def may_be_exposed(self, cell: str, at_ms: int) -> bool:
        """Tell whether a device of the cell may have been pushed to by then without a word of it being known."""
        rings = self._rings.values() if ring_of(cell) in _ANY_RING else filter(None, [self._rings.get(ring_of(cell))])
        return any(reach(ring, at_ms) > 0 for ring in rings)

    def began_ms(self, cell: str, at_ms: int) -> int:
        """Return when the push to the cell's ring began, if it had by then; else the rollout's origin."""
        ring = self._rings.get(ring_of(cell))
        if ring is None or ring.starts_at_ms is None or ring.starts_at_ms > at_ms:
            return self._origin_ms
        return ring.starts_at_ms

    def next_ring(self, at_ms: int) -> str | None:
        """Return the ring whose push begins next; None where none is declared or all have begun."""
        waiting = [
            (math.inf if ring.starts_at_ms is None else ring.starts_at_ms, place, name)
            for place, (name, ring) in enumerate(self._rings.items())
            if ring.starts_at_ms is None or ring.starts_at_ms > at_ms
        ]
        return min(waiting)[2] if waiting else None

    def push_ended(self, at_ms: int) -> bool:
        """Tell whether a ring was to have got all of its push by `at_ms`, as declared."""
        return any(reach(ring, at_ms) >= ring.share for ring in self._rings.values())

    def ring_began(self, at_ms: int) -> bool:
        """Tell whether the push to any declared ring had begun by then."""
        return bool(self._starts) and self._starts[0] <= at_ms

    def latest_start_ms(self, at_ms: int) -> int:
        """Return when the push to the latest ring started by `at_ms` began; the rollout's origin without rings."""
        started = [start for start in self._starts if start <= at_ms]
        return started[-1] if started else self._origin_ms
