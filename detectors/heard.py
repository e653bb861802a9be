"""Which part of the devices that took an update is still heard from.

A lease says "go on, I can see what it does", and an update that silences whoever takes it can't be seen.
Invariant: silence counts against the update, whatever its cause; a crash that was reported is a word, too.
"""

from typing import Final

from detectors.counts import CohortCounts
from detectors.exposure import ExposureBound

EXPOSED_LEAST: Final = 20
# So long after a ring was to have got all of its push, somebody must be known to have taken it.
NOBODY_MS: Final = 900_000
_DIGITS: Final = 4


def share_heard(counts: CohortCounts, crashed: int, bound: ExposureBound, at_ms: int) -> float | None:
    """Return `heard_share` of a rollout from its counts at risk and its first crashes in the exposed arm.

    Args:
        counts: devices at risk, by cell.
        crashed: first crashes in the exposed arm.
        bound: the rollout's rings. Where one was to have got all of its push by `NOBODY_MS` ago and nobody is known to
            have taken it, nothing of it is heard: 0.
        at_ms: event time.
    """
    if not counts.exposed_total and not crashed and bound.push_ended(at_ms - NOBODY_MS):
        return 0.0
    known = counts.known_by_cell().sum(axis=1)
    heard = int(known[~counts.cell_margins.stale()].sum()) if len(known) else 0
    found = heard_share(counts.exposed_total, heard, crashed)
    return None if found is None else round(found, _DIGITS)


def heard_share(exposed: int, heard: int, crashed: int) -> float | None:
    """Return the part of the exposed devices that was heard from lately or is known to have crashed, 0 to 1.

    Args:
        exposed: devices exposed, at risk or not, crashed or not.
        heard: of those without a crash, heard from within a quarter of an hour.
        crashed: exposed devices that have reported a crash, known to be exposed before it or not.

    Returns:
        None where fewer than 20 are exposed: some of so few are always off, and so few may be pushed to.

    Example:
        >>> heard_share(exposed=100, heard=20, crashed=5), heard_share(exposed=19, heard=0, crashed=0)
        (0.25, None)
    """
    # A crashed device counts as exposed a moment before the total says so.
    most = max(exposed, heard + crashed)
    return (heard + crashed) / most if most >= EXPOSED_LEAST else None
