"""Rivals beyond the two that split a rollout's cells: what is left of its evidence once they are allowed for.

Between the trackers, which know counts, and `confounding`, which knows numbers. How a third rival is spread over a
rollout's arms is told by the third's own windows, where its cells are split by the rollout. The invariant: evidence
here is never more than what the same crashes give without a third.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from detectors.cell_margins import base_of, rivals_of
from detectors.confounding import confounded_share
from detectors.counts import CohortCounts
from detectors.sequential import Floats
from detectors.tenants import Flags, Numbers, TenantRatio, TenantRatioState

# Cells are split by so many rivals; with fewer, all rivals are in the strata.
SPLIT_BY: Final = 2


class ThirdState(msgspec.Struct, kw_only=True):
    """What `ThirdRivals.snapshot` gives: enough to go on bit for bit."""

    evidence: TenantRatioState
    scored: int


class ThirdRivals:
    """A rollout's evidence with the exposed share raised by what its unsplit rivals could feign at each crash.

    It begins with the first crash beside two rivals, which no outcome chooses: a bet that starts later is fair all the
    same. Crashes are scored in the same split cells as all others.

    Assumptions. A third is spread over the strata of a cell as over the whole cell, and several thirds independently of
    each other. Counts are those known at the crash.

    A false alarm costs a stopped rollout of a good update, while the third goes on.

    Args:
        tolerated_ratio: rho0.
        floor: of a tenant group's factor.
    """

    def __init__(self, tolerated_ratio: float, floor: float) -> None:
        self._evidence = TenantRatio(tolerated_ratio, floor)
        self._scored = 0
        self._factors: Mapping[str, float] = {}
        self._begun = False

    @property
    def log_evidence(self) -> float:
        """Natural log of the e-value without whichever tenant group carries most; minus infinity before any crash."""
        return float(self._evidence.log_evidence.min()) if self._scored else -math.inf

    def allow(self, factors: Mapping[str, float], rivals: int) -> None:
        """Take by how much the thirds can raise the apparent ratio now, by whole cell; none where there is none.

        Args:
            factors: at least 1 each; cells left out have 1.
            rivals: how many rivals split the cells now.
        """
        self._factors = factors
        self._begun = self._scored > 0 or rivals >= SPLIT_BY

    def score(self, exposed: Flags, share: Floats, group: Numbers, cells: Sequence[str]) -> None:
        """Score crashes in order of arrival.

        Args:
            exposed: shape (n,).
            share: shape (n, 33): upper bound of the exposed share, row j without group j.
            group: shape (n,): tenant groups.
            cells: the n crashes' cells.
        """
        if not self._begun:
            return
        factor = np.array([self._factors.get(base_of(cell), 1.0) for cell in cells])
        self._evidence.update(exposed, confounded_share(share, factor[:, None]), group)
        self._scored += len(cells)

    def snapshot(self) -> ThirdState | None:
        """Return the state, None before any crash; `restore` of it goes on bit for bit."""
        if not self._scored:
            return None
        return ThirdState(evidence=self._evidence.snapshot(), scored=self._scored)

    def load(self, state: ThirdState | None) -> None:
        """Take up a state."""
        if state is not None:
            self._evidence, self._scored = TenantRatio.restore(state.evidence), state.scored


def factors(rollout: str, mine: CohortCounts, thirds: Iterable[CohortCounts]) -> dict[str, float]:
    """Return by how much thirds can raise a rollout's apparent rate ratio, by whole cell.

    Args:
        rollout: the rollout's id, by which the thirds' cells are split.
        mine: its counts.
        thirds: the counts of rivals that its cells are not split by.
    """
    own = _arms(mine)
    found = dict.fromkeys(own, 1.0)
    for third in thirds:
        theirs = _beside(third, rollout)
        whole = _factor(_sum(own.values()), _sum(theirs.values()))
        for base, arms in own.items():
            # A cell that the third's windows do not tell of by itself is in one that was collapsed.
            found[base] *= max(whole, _factor(arms, theirs[base])) if base in theirs else whole
    return found


def _arms(counts: CohortCounts) -> dict[str, list[int]]:
    """Return exposed and control devices at risk by whole cell."""
    found: dict[str, list[int]] = {}
    known, control = counts.known_by_cell().sum(axis=1).tolist(), counts.control_by_cell().tolist()
    for cell, exposed, others in zip(counts.cells, known, control, strict=True):
        arms = found.setdefault(base_of(cell), [0, 0])
        arms[0] += exposed
        arms[1] += others
    return found


def _beside(counts: CohortCounts, rollout: str) -> dict[str, list[int]]:
    """Return devices on a third by whole cell: on the rollout too, not on it, and all counted that are not on it."""
    found: dict[str, list[int]] = {}
    known, control = counts.known_by_cell().sum(axis=1).tolist(), counts.control_by_cell().tolist()
    for cell, exposed, others in zip(counts.cells, known, control, strict=True):
        row = found.setdefault(base_of(cell), [0, 0, 0])
        if rollout in rivals_of(cell):
            row[0] += exposed
        else:
            row[1] += exposed
            row[2] += exposed + others
    return found


def _sum(rows: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]


def _factor(arms: Sequence[int], third: Sequence[int]) -> float:
    """Return the largest ratio of a presence of the third among the exposed to that among the controls.

    Args:
        arms: devices exposed to the rollout, and its controls.
        third: devices on the third that are on the rollout; on the third that are not; and all that the third's windows
            count without the rollout, of which some may not have the rollout's product at all.
    """
    if not any(arms) or not any(third):
        return 1.0
    (exposed, control), (on_both, on_third, without) = arms, third
    if not exposed or not control:
        # One arm alone gives no evidence anyway.
        return 1.0
    on_both = min(on_both, exposed)
    # The fewest and the most controls that can be on the third.
    least = min(max(0, on_third - max(0, without - control)), control)
    most = min(on_third, control)
    ratios = [1.0]
    if on_both:
        ratios.append(on_both / exposed / (least / control) if least else math.inf)
    if exposed > on_both:
        ratios.append((exposed - on_both) / exposed / ((control - most) / control) if control > most else math.inf)
    return max(ratios)
