"""Evidence in words and numbers for a person: each method's part, and how much worse the exposed arm may be."""

import math
from collections.abc import Sequence
from typing import Final

from scipy.special import gammaincinv

from detectors.baseline import PAST_TO_KILL, Baseline
from detectors.counts import CohortCounts
from detectors.evidence import CrashEvidence
from detectors.silence import Silence
from detectors.tally import CrashTally
from detectors.verdict import Method

_LN10: Final = math.log(10.0)
_DAY_SECONDS: Final = 86_400.0


def loudest_cells(tally: CrashTally, counts: CohortCounts) -> list[tuple[str, int, int, int, int]]:
    """Return the cells with most crashes: exposed and control crashes, and devices at risk in each arm."""
    cells = []
    for cell, exposed, control in tally.top_cells():
        column = counts.column(cell)
        cells.append((cell, exposed, control, *((0, 0) if column is None else counts.at_risk(column))))
    return cells


def describe(
    parts: Sequence[float],
    weights: Sequence[float],
    crashes: CrashEvidence,
    silence: Silence,
    baseline: Baseline,
    unscored: int,
) -> list[Method]:
    """Return the methods' parts of the evidence; `parts` are natural logs of their e-values, in this order."""
    history = f"{len(baseline.past)} past rollouts"
    if not baseline.can_kill:
        history += f" < {PAST_TO_KILL} needed to kill"
    pooled, novel = crashes.rate.pooled, crashes.novelty.ratio
    return [
        Method(
            name="rate_ratio",
            log10_evidence=parts[0] / _LN10,
            weight=weights[0],
            events_exposed=pooled.exposed,
            events_control=pooled.control,
            expected_share=pooled.expected_share,
            note=f"{unscored} crashes are counted but are no evidence" if unscored else "",
        ),
        Method(
            name="new_signature",
            log10_evidence=parts[1] / _LN10,
            weight=weights[1],
            events_exposed=novel.exposed,
            events_control=novel.control,
            expected_share=novel.expected_share,
        ),
        Method(
            name="silence",
            log10_evidence=parts[2] / _LN10,
            weight=weights[2],
            events_exposed=silence.exposed,
            events_control=silence.control,
            expected_share=silence.expected_share,
            note=f"{silence.scored} strata scored, {silence.frozen} frozen because controls were quiet too",
        ),
        Method(
            name="baseline",
            log10_evidence=parts[3] / _LN10,
            weight=weights[3],
            events_exposed=baseline.crashes,
            note=history,
        ),
    ]


def excess_high(exposed: int, exposed_seconds: float, control: int, control_seconds: float) -> float | None:
    """Return an upper bound of the exposed crash rate less the control's, in crashes per device and day.

    The exact Poisson upper 97.5 % limit of the one less the lower 97.5 % limit of the other: both hold at once in 95 %.

    Args:
        exposed: crashes in the exposed arm.
        exposed_seconds: device-time at risk in it, known for sure.
        control: crashes in the control arm.
        control_seconds: device-time at risk in it.

    Source: Garwood (1936), fiducial limits for the Poisson distribution.
    """
    if exposed_seconds <= 0:
        return None
    high = float(gammaincinv(exposed + 1, 0.975)) * _DAY_SECONDS / exposed_seconds
    if not control or control_seconds <= 0:
        return high
    return high - float(gammaincinv(control, 0.025)) * _DAY_SECONDS / control_seconds
