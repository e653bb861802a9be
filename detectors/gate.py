"""The gate: may this rollout go to its next ring?

The tracker feeds it every first crash and the device-days at risk by margin cell; the decision asks it for the cells of
the next ring. The invariant: it passes only if *every* such cell is shown not to be harmed, so that evidence of one
cell never speaks for another. Not enough evidence is not health.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from detectors.gate_cell import CellEvidence, CellGate, CellState, HarmBound

CELLS_MAX: Final = 256
_LOG10: Final = math.log(10.0)
# A sentence names this many cells; the answer holds all.
_NAMED_MAX: Final = 3


class CellWord(StrEnum):
    """What the gate says of one cell."""

    RATIO = "ratio"
    EXCESS = "excess"
    LACKING = "lacking"
    ONE_GROUP = "one_group"
    UNCOVERED = "uncovered"
    EXCLUDED = "excluded"


CELL_WORD_DOCS: Final[dict[CellWord, str]] = {
    CellWord.RATIO: "Passed, mostly because crashes fall on exposed devices no more often than on others.",
    CellWord.EXCESS: "Passed, mostly because there were few crashes in many exposed device-days.",
    CellWord.LACKING: "Not passed: more exposed device-days are needed, or there is harm.",
    CellWord.ONE_GROUP: "Not passed: all there is comes from one tenant group, and one alone opens no gate.",
    CellWord.UNCOVERED: "Not passed: no exposed device of this kind has been observed.",
    CellWord.EXCLUDED: "Not asked: the next ring leaves these devices out.",
}


class AgeNeed(msgspec.Struct, frozen=True, kw_only=True):
    """What the update has to have been through before any ring may follow.

    Attributes:
        boots: exposed devices that have booted since, at least.
        wakes: exposed devices that have woken from a long sleep since, at least.
        hours: the longest declared latency: exposed devices have to have been exposed for so long.
    """

    boots: int = 1
    wakes: int = 1
    hours: float = 0.0


class AgeCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """What the update has been through: nothing, where not told.

    Attributes:
        booted: exposed devices heard from after a boot since they were exposed.
        woken: exposed devices heard from after a wake since they were exposed.
        hours: age of the exposure that enough devices have reached and were heard from after.
    """

    booted: int = 0
    woken: int = 0
    hours: float = 0.0


class CellAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says of one cell of the next ring, with its numbers.

    Attributes:
        name: the margin cell, such as `build=22631.3880`.
        share: its share of the next ring, as asked.
        word: passed by ratio or excess, or why not.
        log10_evidence: evidence that it is not harmed: log10 of the mean of the two e-values, one group left out.
        log10_ratio: that of the rate ratio alone.
        log10_excess: that of the excess alone.
        left_out: the tenant group without which evidence is least; None if none was left out.
        device_days: exposed device-days at risk, of all groups.
        crashes_exposed: crashes of devices that were or may have been exposed.
        crashes_control: crashes of devices that were not.
        device_days_needed: exposed device-days still needed if nobody crashes; None where no time is enough, where the
            cell has passed, or where no plan was made for it.
        hours_needed: the same at the present number of exposed devices; None where that isn't known.
    """

    name: str
    share: float
    word: CellWord
    log10_evidence: float = 0.0
    log10_ratio: float = 0.0
    log10_excess: float = 0.0
    left_out: int | None = None
    device_days: float = 0.0
    crashes_exposed: int = 0
    crashes_control: int = 0
    device_days_needed: float | None = None
    hours_needed: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the cell holds nothing up."""
        return self.word in (CellWord.RATIO, CellWord.EXCESS, CellWord.EXCLUDED)


class GateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What `Gate.ask` says.

    Attributes:
        passed: the rollout may go to these cells.
        log10_needed: evidence that each cell needed.
        cells: every cell that was asked for, in the order of asking.
        age_lacking: what the update has not been through yet, as phrases with their numbers.
        cells_refused: margin cells that were not kept because there were too many.
        ring: the declared ring whose cells they are; empty where it is everybody who is not exposed yet.
    """

    passed: bool
    log10_needed: float
    cells: list[CellAnswer]
    age_lacking: list[str]
    cells_refused: int = 0
    ring: str = ""

    @property
    def holding(self) -> list[CellAnswer]:
        """The cells that hold the gate shut: those to wait for, or to exclude."""
        return [cell for cell in self.cells if not cell.passed]

    @property
    def uncovered(self) -> list[str]:
        """Names of the cells of which nothing has been observed."""
        return [cell.name for cell in self.cells if cell.word is CellWord.UNCOVERED]

    @property
    def sentence(self) -> str:
        """The answer in one sentence with its numbers."""
        if self.passed:
            counts = {word: sum(cell.word is word for cell in self.cells) for word in CellWord}
            text = f"every cell of the next ring is bounded: {counts[CellWord.RATIO]} by ratio, "
            text += f"{counts[CellWord.EXCESS]} by excess"
            excluded = counts[CellWord.EXCLUDED]
            return text + (f"; {excluded} excluded" if excluded else "")
        parts = list(self.age_lacking)
        holding = sorted(self.holding, key=lambda cell: -cell.share)
        parts += [_holding(cell, self.log10_needed) for cell in holding[:_NAMED_MAX]]
        if len(holding) > _NAMED_MAX:
            parts.append(f"and {len(holding) - _NAMED_MAX} more of {len(self.cells)} cells")
        return "the next ring waits: " + "; ".join(parts or ["which cells it has is not known"])


class GateState(msgspec.Struct, kw_only=True):
    """What `Gate.snapshot` gives: enough to go on bit for bit."""

    bound: HarmBound
    alpha: float
    age: AgeNeed
    names: list[str]
    cells: list[CellState]
    refused: list[str]
    refused_more: int


class Gate:
    """Intersection-union over margin cells: passes when every cell of the next ring is shown not to be harmed.

    Each cell's evidence is an e-process against "this cell is harmed" (`CellGate` has model and formula). Passing takes
    1 / alpha in *each* of them, so the chance to pass a ring with harm in any cell is at most the chance that the
    harmed cell alone gets there: alpha, however many cells there are, however often one asks, and however well the
    others do. Pooled evidence has no such bound: harm of ratio 20 in one of 64 cells passes in most runs.

    Excluding cells after having looked is a choice among outcomes, so it has its price: with x cells excluded every
    other one needs (1 + x) / alpha. (If s cells are harmed, a wrong pass takes s - x > 0 of them, or one where s <= x,
    to get there; by Markov's inequality the chance is at most s alpha' / max(s - x, 1) <= (1 + x) alpha'.) Cells that
    the next ring never had are simply not asked for and cost nothing.

    Answers don't latch: a crash after a pass can shut the gate again.

    Args:
        bound: what counts as harm.
        alpha: the chance to pass harm that is accepted.
        age: what the update has to have been through.

    Example:
        >>> gate = Gate(HarmBound(ratio=1.5, excess_per_device_day=0.002), alpha=0.05)
        >>> for group in (0, 1, 2):
        ...     gate.expose("form=laptop", group, 1500.0)
        >>> seen = AgeCoverage(booted=40, woken=12)
        >>> gate.ask({"form=laptop": 0.9}, seen).passed
        True
        >>> print(gate.ask({"form=laptop": 0.9, "form=server": 0.1}, seen).sentence)
        the next ring waits: form=server (10 % of the ring) is not covered: 1993 exposed device-days needed
    """

    def __init__(self, bound: HarmBound, alpha: float = 0.05, age: AgeNeed | None = None) -> None:
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha is {alpha}: give a chance between 0 and 1, such as 0.05")
        self.bound = bound
        self.alpha = alpha
        self.age = age or AgeNeed()
        self._cells: dict[str, CellGate] = {}
        self._refused: set[str] = set()
        self._refused_more = 0

    @property
    def cells(self) -> list[str]:
        """The margin cells of which something is known."""
        return list(self._cells)

    @property
    def cells_refused(self) -> int:
        """How many names were not kept because there were too many; beyond some hundred, calls with such names."""
        return len(self._refused) + self._refused_more

    def add(self, margins: Sequence[str], group: int, exposed: bool, share_low: float) -> None:
        """Score one first crash in each margin cell that its device belongs to.

        Args:
            margins: the device's margin cells, each name once.
            group: its tenant group.
            exposed: True unless the device is known not to be exposed.
            share_low: lower bound of the exposed share at risk in the device's own cell and group, 0 to 1.

        Raises:
            ValueError: the share is no number between 0 and 1.
        """
        for margin in margins:
            cell = self._cell(margin)
            if cell is not None:
                cell.add(group, exposed, share_low)

    def expose(self, margin: str, group: int, device_days: float) -> None:
        """Add device-days at risk of devices of one margin cell and group that are known to be exposed.

        Raises:
            ValueError: they are negative or no number.
        """
        if device_days == 0.0:
            return
        cell = self._cell(margin)
        if cell is not None:
            cell.expose(group, device_days)

    def ask(
        self,
        needed: Mapping[str, float],
        age: AgeCoverage | None = None,
        *,
        exclude: Collection[str] = (),
        exposed_now: Mapping[str, float] | None = None,
        trusted: Collection[int] = (),
        leave_one_out: bool = True,
        plan: bool = True,
        plan_most: int = CELLS_MAX,
    ) -> GateAnswer:
        """Answer whether the rollout may go to these cells.

        Args:
            needed: the margin cells of the next ring with their share of it, 0 to 1. None at all never passes.
            age: what the update has been through; nothing, where not told.
            exclude: cells of `needed` that the next ring leaves out; each raises what the others need.
            exposed_now: known exposed devices at risk by margin cell, to turn device-days into hours.
            trusted: tenant groups that are believed alone.
            leave_one_out: False believes every group, for a fleet of one tenant.
            plan: whether to compute what is still needed, for the cells that hold the gate shut.
            plan_most: for how many of them, those that are the largest part of the ring.

        Raises:
            ValueError: a cell to exclude is not among the needed ones.
        """
        unknown = sorted(set(exclude) - set(needed))
        if unknown:
            raise ValueError(f"can't exclude {', '.join(unknown)}: not among the next ring's cells; check the names")
        log_needed = math.log((1 + len(set(exclude))) / self.alpha)
        cells = [
            CellAnswer(name=name, share=share, word=CellWord.EXCLUDED)
            if name in exclude
            else self._answer(name, share, log_needed, trusted, leave_one_out)
            for name, share in needed.items()
        ]
        if plan:
            shut = sorted((-cell.share, index) for index, cell in enumerate(cells) if not cell.passed)[:plan_most]
            for _, index in shut:
                cells[index] = self._planned(cells[index], log_needed, exposed_now or {}, trusted, leave_one_out)
        lacking = _age_lacking(self.age, age or AgeCoverage())
        asked = [cell for cell in cells if cell.word is not CellWord.EXCLUDED]
        return GateAnswer(
            passed=bool(asked) and all(cell.passed for cell in asked) and not lacking,
            log10_needed=log_needed / _LOG10,
            cells=cells,
            age_lacking=lacking,
            cells_refused=self.cells_refused,
        )

    def _answer(
        self, name: str, share: float, log_needed: float, trusted: Collection[int], leave_one_out: bool
    ) -> CellAnswer:
        # A cell of which nothing is known answers as an empty one does.
        told = self._cells.get(name) or CellGate(self.bound)
        found = told.evidence(trusted, leave_one_out=leave_one_out)
        return CellAnswer(
            name=name,
            share=share,
            word=_word(told, found, log_needed),
            log10_evidence=found.log_evidence / _LOG10,
            log10_ratio=found.log_ratio / _LOG10,
            log10_excess=found.log_excess / _LOG10,
            left_out=found.left_out,
            device_days=told.device_days,
            crashes_exposed=told.exposed,
            crashes_control=told.control,
        )

    def _planned(
        self,
        cell: CellAnswer,
        log_needed: float,
        exposed_now: Mapping[str, float],
        trusted: Collection[int],
        leave_one_out: bool,
    ) -> CellAnswer:
        told = self._cells.get(cell.name) or CellGate(self.bound)
        days = told.days_needed(log_needed, trusted, leave_one_out=leave_one_out)
        now = exposed_now.get(cell.name, 0.0)
        hours = 24.0 * days / now if days is not None and now > 0 else None
        return msgspec.structs.replace(cell, device_days_needed=days, hours_needed=hours)

    def _cell(self, name: str) -> CellGate | None:
        cell = self._cells.get(name)
        if cell is not None:
            return cell
        if len(self._cells) >= CELLS_MAX:
            # Nothing makes room: a cell that was forgotten and began anew could be tried until it passes.
            if len(self._refused) < CELLS_MAX:
                self._refused.add(name)
            elif name not in self._refused:
                self._refused_more += 1
            return None
        cell = self._cells[name] = CellGate(self.bound)
        return cell

    def snapshot(self) -> GateState:
        """Return the state; `restore` of it goes on bit for bit."""
        return GateState(
            bound=self.bound,
            alpha=self.alpha,
            age=self.age,
            names=list(self._cells),
            cells=[cell.snapshot() for cell in self._cells.values()],
            refused=sorted(self._refused),
            refused_more=self._refused_more,
        )

    @classmethod
    def restore(cls, state: GateState) -> "Gate":
        """Build the gate that `state` was taken from."""
        gate = cls(state.bound, state.alpha, state.age)
        gate._cells = {name: CellGate.restore(cell) for name, cell in zip(state.names, state.cells, strict=True)}
        gate._refused = set(state.refused)
        gate._refused_more = state.refused_more
        return gate


def _word(cell: CellGate, found: CellEvidence, log_needed: float) -> CellWord:
    # Before all else: crashes among controls alone must not pass a cell that nobody has tried the update in.
    if cell.device_days == 0.0:
        return CellWord.UNCOVERED
    if found.log_evidence >= log_needed:
        return CellWord.RATIO if found.log_ratio > found.log_excess else CellWord.EXCESS
    return CellWord.ONE_GROUP if cell.groups == 1 and found.left_out is not None else CellWord.LACKING


def _age_lacking(need: AgeNeed, seen: AgeCoverage) -> list[str]:
    lacking = []
    if seen.booted < need.boots:
        lacking.append(f"{seen.booted} exposed devices have booted since < {need.boots}")
    if seen.woken < need.wakes:
        lacking.append(f"{seen.woken} exposed devices have woken since < {need.wakes}")
    if not seen.hours >= need.hours:
        lacking.append(f"exposed devices were observed for {seen.hours:.1f} h < {need.hours:g} h of declared latency")
    return lacking


def _holding(cell: CellAnswer, log10_needed: float) -> str:
    text = f"{cell.name} ({100 * cell.share:.2g} % of the ring) "
    if cell.word is CellWord.UNCOVERED:
        text += "is not covered"
    elif cell.word is CellWord.ONE_GROUP:
        return text + "was observed in one tenant group only"
    else:
        text += f"has evidence 10^{cell.log10_evidence:.1f} < 10^{log10_needed:.1f} of health"
        text += f" with {cell.crashes_exposed} exposed crashes in {cell.device_days:.0f} device-days"
    if cell.device_days_needed is None:
        return text
    text += f": {cell.device_days_needed:.0f} exposed device-days needed"
    return text + (f", {cell.hours_needed:.1f} h at present" if cell.hours_needed is not None else "")
