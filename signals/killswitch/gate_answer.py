"""May the rollout go to its next ring: the gate's report, the switch and the lease in one answer.

A pure function between the views and `GET /v1/rollouts/{id}/gate`. The detectors say what each cell of the next ring
has shown; whether anything stops the rollout is decided in `effective`. Invariants: every cell counts on its own, a
cell without evidence is named and never counted as passed, and what is left out is paid for by all the others.
"""

import enum
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from detectors.gate import CellWord
from detectors.scope import Scope
from detectors.verdict import DecisionWord, GateCell, GateReport
from ingest.rollouts import Ring
from signals.events import Lease, ScopedStop, Switch
from signals.killswitch.effective import Effective, EffectiveReason

_PASSED = frozenset({CellWord.RATIO.value, CellWord.EXCESS.value})
# A report rounds evidence to three digits: what could be a rounding up does not open a gate.
_ROUNDING = 0.001
_NAMED_MAX = 3


class GateError(Exception):
    """The question can't be asked so; the message says what to ask instead."""


class NoSuchRingError(GateError):
    """The ring is not declared, or a cell is none of the next ring's."""


class NotNextError(GateError):
    """The ring is declared, but it is not the next one."""


class GateReason(enum.StrEnum):
    """Why the gate is open or shut, as a closed word."""

    PASSED = "passed"
    FIRST_RING = "first_ring"
    STOPPED = "stopped"
    CELLS_HOLDING = "cells_holding"
    NOT_LIVED_THROUGH = "not_lived_through"
    NOT_LISTED = "not_listed"
    NOT_ASKED = "not_asked"


GATE_REASON_DOCS: dict[GateReason, str] = {
    GateReason.PASSED: "Every cell of the ring is shown not to be harmed, and a lease says proceed.",
    GateReason.FIRST_RING: "No ring has started: nothing is exposed that could be asked, and a lease says proceed.",
    GateReason.STOPPED: "A stop stands, or no lease says proceed; `decision_reason` says which.",
    GateReason.CELLS_HOLDING: "Some cells lack evidence that they are not harmed; each is named with what it needs.",
    GateReason.NOT_LIVED_THROUGH: "The update has not been through enough boots, wakes or hours yet.",
    GateReason.NOT_LISTED: "Cells are left out, so all others need more, and some are too many to be listed.",
    GateReason.NOT_ASKED: "A ring has started, but detection has not said yet what its cells show.",
}


class GateDecision(msgspec.Struct, kw_only=True):
    """What `GET /v1/rollouts/{id}/gate` answers.

    Attributes:
        to: the ring that was asked about.
        proceed: the push to it may begin, until `until_ms`.
        reason: why, as a closed word.
        sentence: why, with its numbers, for a person.
        until_ms: how long `proceed` holds: the lease's end; 0 where it does not proceed, or the lane has no leases.
        decision: what a rollout system must do in that ring by switch and lease alone.
        decision_reason: why, as a closed word.
        decision_sentence: why, for a person.
        log10_needed: evidence that each cell needs, what is left out paid for; null before detection has said.
        cells: every cell of the ring, those that hold the gate shut first; a cell that is left out is `excluded`.
        uncovered: names of the cells of which nothing has been observed: wait for them, or leave them out.
        lacking: what the update has not been through yet, as phrases with their numbers.
        cells_more: cells that are not listed, because there are too many.
        device_days_needed: the most that any cell still needs, if nobody crashes; null where that can't be told.
        hours_needed: the same in hours, at the present number of exposed devices; null where that can't be told.
        coverage: which share of the ring's devices is of an OS build, a model, ... that was observed exposed.
    """

    rollout: str
    to: str
    proceed: bool
    reason: GateReason
    sentence: str
    until_ms: int
    decision: DecisionWord
    decision_reason: EffectiveReason
    decision_sentence: str
    log10_needed: float | None = None
    cells: list[GateCell] = []
    uncovered: list[str] = []
    lacking: list[str] = []
    cells_more: int = 0
    device_days_needed: float | None = None
    hours_needed: float | None = None
    coverage: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class GateQuestion:
    """What is asked.

    Attributes:
        rollout: its id.
        to: the ring to push to.
        exclude: cells that the push leaves out, such as `build=22631.3880`.
        rings: as declared.
        report: of the latest verdict; None while no declared ring has begun.
        now_ms: the wall clock, or the verdict's event time where a replay drives the clock.
    """

    rollout: str
    to: str
    exclude: Collection[str]
    rings: Sequence[Ring]
    report: GateReport | None
    now_ms: int


def next_ring(question: GateQuestion) -> str:
    """Return the ring whose turn it is, which is the one that was asked about.

    Raises:
        NoSuchRingError: the ring is not declared.
        NotNextError: another one is next, or none.
    """
    names = [ring.name for ring in question.rings]
    if question.to not in names:
        declared = f"it declares {', '.join(names)}" if names else "it declares no rings"
        raise NoSuchRingError(f"rollout {question.rollout} has no ring {question.to[:64]!r}: {declared}")
    upcoming = [ring for ring in question.rings if ring.starts_at_ms is None or ring.starts_at_ms > question.now_ms]
    # Rings follow each other by when they start; those without a time come last, in the order of the declaration.
    upcoming.sort(key=lambda ring: math.inf if ring.starts_at_ms is None else ring.starts_at_ms)
    if not upcoming:
        raise NotNextError(f"every ring of rollout {question.rollout} has started: there is no next one")
    if upcoming[0].name != question.to:
        raise NotNextError(
            f"{question.to!r} is not the next ring of rollout {question.rollout}: {upcoming[0].name!r} is"
        )
    return question.to


def gate_answer(question: GateQuestion, found: Effective) -> GateDecision:
    """Return whether the push to the next ring may begin, and what is still needed.

    Args:
        question: what is asked, and what detection says of it.
        found: what switch and lease say of that ring.

    Raises:
        NoSuchRingError: the ring is not declared, or a cell to leave out is none of its cells.
        NotNextError: the ring is not the next one.
    """
    next_ring(question)
    report = question.report if question.report is not None and question.report.to == question.to else None
    if report is None:
        started = any(ring.starts_at_ms is not None and ring.starts_at_ms <= question.now_ms for ring in question.rings)
        return _without_report(question, found, started)
    cells = _asked(report, question.exclude)
    needed = report.log10_needed + math.log10(1 + len(set(question.exclude)))
    holding = [cell for cell in cells if not _passes(cell, needed, excluding=bool(question.exclude))]
    reason, sentence = _judged(report, cells, holding, needed, excluding=bool(question.exclude))
    made = _decision(question, found, reason, sentence)
    made.log10_needed, made.cells, made.cells_more = round(needed, 3), cells, report.cells_more
    made.lacking = list(report.lacking)
    made.uncovered = [cell.name for cell in cells if cell.word == CellWord.UNCOVERED]
    made.device_days_needed = _most([cell.device_days_needed for cell in holding])
    made.hours_needed = _most([cell.hours_needed for cell in holding])
    made.coverage = _coverage(cells)
    return made


def without_cells(stops: Sequence[ScopedStop], exclude: Collection[str]) -> list[ScopedStop]:
    """Return the stops that bind a push which leaves these cells out."""
    left_out = {(name, value) for name, _, value in (cell.partition("=") for cell in exclude)}

    def avoided(scope: Scope) -> bool:
        return ("build", scope.os_build) in left_out or ("model", scope.model) in left_out

    return [stop for stop in stops if not avoided(stop.scope)]


def avoiding(
    switch: Switch | None, lease: Lease | None, exclude: Collection[str]
) -> tuple[Switch | None, Lease | None]:
    """Return event and lease without the stops of parts that the push leaves out."""
    if not exclude:
        return switch, lease
    return (
        switch and msgspec.structs.replace(switch, stops=without_cells(switch.stops, exclude)),
        lease and msgspec.structs.replace(lease, stops=without_cells(lease.stops, exclude)),
    )


def _asked(report: GateReport, exclude: Collection[str]) -> list[GateCell]:
    names = {cell.name for cell in report.cells}
    unknown = sorted(set(exclude) - names)
    if unknown:
        raise NoSuchRingError(
            f"can't leave out {', '.join(unknown)[:200]}: no listed cell of ring {report.to!r} is called so"
        )
    return [
        msgspec.structs.replace(cell, word=CellWord.EXCLUDED.value, device_days_needed=None, hours_needed=None)
        if cell.name in exclude
        else cell
        for cell in report.cells
    ]


def _passes(cell: GateCell, needed: float, *, excluding: bool) -> bool:
    if cell.word == CellWord.EXCLUDED:
        return True
    return cell.word in _PASSED and (not excluding or cell.log10_evidence - _ROUNDING >= needed)


def _judged(
    report: GateReport, cells: Sequence[GateCell], holding: Sequence[GateCell], needed: float, *, excluding: bool
) -> tuple[GateReason, str]:
    if report.lacking:
        return GateReason.NOT_LIVED_THROUGH, f"{report.to} waits: {'; '.join(report.lacking)}"
    if holding:
        named = "; ".join(_holding(cell, needed) for cell in holding[:_NAMED_MAX])
        more = len(holding) - _NAMED_MAX
        return GateReason.CELLS_HOLDING, f"{report.to} waits: {named}" + (f"; and {more} more" if more > 0 else "")
    if excluding and report.cells_more:
        return GateReason.NOT_LISTED, f"{report.to} waits: {report.cells_more} cells are not listed, and all need more"
    asked = [cell for cell in cells if cell.word != CellWord.EXCLUDED]
    if not asked or not (report.passed or excluding):
        return GateReason.CELLS_HOLDING, f"{report.to} waits: {report.sentence}"
    return GateReason.PASSED, f"every cell of {report.to} that is pushed to is bounded: {len(asked)} of {len(cells)}"


def _holding(cell: GateCell, needed: float) -> str:
    if cell.word == CellWord.UNCOVERED:
        text = f"{cell.name} ({100 * cell.share:.2g} % of the ring) has not been observed"
    else:
        text = f"{cell.name} ({100 * cell.share:.2g} % of the ring) has evidence 10^{cell.log10_evidence:.1f} of "
        text += f"10^{needed:.1f} needed"
    return text + ("" if cell.device_days_needed is None else f", {cell.device_days_needed:.0f} device-days to go")


def _without_report(question: GateQuestion, found: Effective, started: bool) -> GateDecision:
    if started:
        sentence = f"{question.to} waits: detection has not said yet what the cells of {question.to} show"
        return _decision(question, found, GateReason.NOT_ASKED, sentence)
    return _decision(
        question, found, GateReason.FIRST_RING, f"{question.to} is the first ring: there is nothing yet to be asked"
    )


def _decision(question: GateQuestion, found: Effective, reason: GateReason, sentence: str) -> GateDecision:
    if not found.proceed:
        reason, sentence = GateReason.STOPPED, f"{question.to} waits: {found.sentence}"
    proceed = found.proceed and reason in (GateReason.PASSED, GateReason.FIRST_RING)
    return GateDecision(
        rollout=question.rollout,
        to=question.to,
        proceed=proceed,
        reason=reason,
        sentence=sentence,
        until_ms=found.until_ms if proceed else 0,
        decision=found.decision,
        decision_reason=found.reason,
        decision_sentence=found.sentence,
    )


def _most(needed: Sequence[float | None]) -> float | None:
    known = [number for number in needed if number is not None]
    return max(known) if known and len(known) == len(needed) else None


def _coverage(cells: Sequence[GateCell]) -> dict[str, float]:
    """Return, by margin, the share of the ring's devices whose cell has been observed exposed."""
    seen: dict[str, float] = {}
    total: dict[str, float] = {}
    for cell in cells:
        margin = cell.name.partition("=")[0]
        total[margin] = total.get(margin, 0.0) + cell.share
        # What is left out is not pushed to, so it needs no cover; it counts as far as it has been observed.
        observed = cell.word != CellWord.UNCOVERED and cell.device_days > 0
        seen[margin] = seen.get(margin, 0.0) + (cell.share if observed else 0.0)
    return {margin: round(seen[margin] / whole, 4) for margin, whole in sorted(total.items()) if whole > 0}
