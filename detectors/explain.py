"""Which of the updates on a rollout's devices explains its crashes best, as a sentence in its verdict.

For the person who looks at a hold or a kill: from counts as they are now, by `ranking`. The invariant: it is asked for
only where a rollout is suspected beside rivals, seldom, and nothing is decided by it.
"""

import msgspec
import numpy as np

from detectors.cell_margins import base_of, rivals_of
from detectors.counts import CohortCounts
from detectors.ranking import CELLS_MAX, UPDATES_MAX, Stratum, rank
from detectors.tally import CrashTally

TOLD_MAX = 3


class Ranking(msgspec.Struct, frozen=True, array_like=True):
    """What was said last, and how many first crashes there were then."""

    crashes: int = 0
    text: str = ""


def explanation(rollout: str, counts: CohortCounts, tally: CrashTally, elapsed_seconds: float) -> str:
    """Return a sentence that ranks a rollout and its rivals by what they explain; empty where there is no rival.

    Args:
        rollout: its id.
        counts: its devices at risk now, with its cells split by rivals.
        tally: its first crashes by cell.
        elapsed_seconds: since it began; devices count as at risk for so long, as they are spread now.
    """
    rivals = counts.rivals()
    if not rivals:
        return ""
    strata = []
    for column, cell in enumerate(counts.cells):
        fallen = tally.cells.get(cell, [0, 0])
        for crashes, devices, own in zip(fallen, counts.at_risk(column), ({rollout}, set[str]()), strict=True):
            seconds = (devices + crashes) * max(elapsed_seconds, 1.0)
            strata.append(Stratum(base_of(cell), frozenset({*own, *rivals_of(cell)}), crashes, seconds))
    if len({one.cell for one in strata}) > CELLS_MAX or not any(one.device_seconds for one in strata):
        return ""
    try:
        ranked = rank(strata, [rollout, *rivals][:UPDATES_MAX])
    except np.linalg.LinAlgError:
        # Counts that no regression can take apart say nothing; what was decided stands without them.
        return ""
    return f"By counts alone, the likeliest cause first: {'; '.join(one.text for one in ranked[:TOLD_MAX])}."


def ranked_again(before: Ranking, rollout: str, counts: CohortCounts, tally: CrashTally, seconds: float) -> Ranking:
    """Return what is said of a rollout among its rivals: what was said, until crashes have doubled since."""
    crashes = tally.exposed + tally.control
    if crashes < max(1, 2 * before.crashes):
        return before
    return Ranking(crashes, explanation(rollout, counts, tally, seconds))
