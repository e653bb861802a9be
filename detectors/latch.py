"""The methods' evidence as one number, without whichever tenant group carries most of it; its highest so far.

Decisions latch at the first crossing, so the maxima are what counts. Plain numbers only. Invariant: parts that are
combined are evidence of one and the same moment.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from detectors.combine import combine_rows
from detectors.sequential import Floats
from detectors.tenants import NOBODY


class Parts(NamedTuple):
    """Natural logs of the methods' e-values, rows of the group left out last: shapes (33,) or (n, 33).

    Attributes:
        rate: rate ratio, all cells and margins.
        novelty: new signatures.
        silence: silent devices.
        baseline: the product's past.
        early: rate ratio against what a hold tolerates, nobody left out: shape () or (n,). It takes the place of `rate`
            where a hold is asked for.
    """

    rate: Floats
    novelty: Floats
    silence: Floats
    baseline: Floats
    early: Floats


class LatchState(msgspec.Struct, kw_only=True):
    """What `Latch.snapshot` gives: natural logs of the highest evidence."""

    kill_max: float
    hold_max: float
    everybody_max: float


class Latch:
    """Combines and keeps maxima.

    Args:
        weights: of the parts, in their order; they sum to 1.
        trusted_groups: tenant groups whose word is not doubted: they are never left out.
        one_may_kill: policy takes the word of one tenant alone: nobody is left out.

    Attributes:
        kill_max: the highest evidence that may kill.
        hold_max: the highest that may hold: nobody left out, and with methods whose history is too short to kill.
        everybody_max: the highest that would kill if nobody were left out.
    """

    def __init__(self, weights: Sequence[float], trusted_groups: Sequence[int], *, one_may_kill: bool) -> None:
        self._weights = tuple(weights)
        self._doubted = np.array([row for row in range(NOBODY + 1) if row not in set(trusted_groups)])
        self._one_may_kill = one_may_kill
        self.kill_max = 0.0
        self.hold_max = 0.0
        self.everybody_max = 0.0

    def rows(self, parts: Parts, *, baseline: bool) -> Floats:
        """Return the combined log evidence by row; `baseline` False leaves out the past, which keeps its weight."""
        past = parts.baseline if baseline else np.zeros_like(parts.baseline)
        return combine_rows((parts.rate, parts.novelty, parts.silence, past), self._weights)

    def hold(self, parts: Parts) -> Floats:
        """Return the combined log evidence that may hold, nobody left out: shape () or (n,)."""
        rest = (part[..., NOBODY] for part in (parts.novelty, parts.silence, parts.baseline))
        return combine_rows((parts.early, *rest), self._weights)

    def least(self, rows: Floats) -> Floats:
        """Return the evidence without whichever group carries most of it: of shape (..., 33), shape (...)."""
        if self._one_may_kill:
            everybody: Floats = rows[..., NOBODY]
            return everybody
        least: Floats = rows[..., self._doubted].min(axis=-1)
        return least

    def left_out(self, rows: Floats) -> int | None:
        """Return the group without which evidence is least; None where leaving one out lowers nothing."""
        if self._one_may_kill:
            return None
        lowest = int(self._doubted[int(rows[self._doubted].argmin())])
        return lowest if lowest != NOBODY and rows[lowest] < rows[NOBODY] else None

    def take(self, parts: Parts, *, baseline_may_kill: bool) -> bool:
        """Take evidence, after one or each of some events; tell whether any of the maxima rose."""
        hold = float(self.hold(parts).max())
        able = self.rows(parts, baseline=baseline_may_kill)
        kill, everybody = float(self.least(able).max()), float(able[..., NOBODY].max())
        if hold <= self.hold_max and kill <= self.kill_max and everybody <= self.everybody_max:
            return False
        self.hold_max, self.kill_max = max(self.hold_max, hold), max(self.kill_max, kill)
        self.everybody_max = max(self.everybody_max, everybody)
        return True

    def snapshot(self) -> LatchState:
        """Return the state; `restore` puts it back."""
        return LatchState(kill_max=self.kill_max, hold_max=self.hold_max, everybody_max=self.everybody_max)

    def load(self, state: LatchState) -> None:
        """Take up maxima; weights and whom to trust stay those of today's policy."""
        self.kill_max, self.hold_max, self.everybody_max = state.kill_max, state.hold_max, state.everybody_max
