"""The gate's answer as a verdict carries it: cell by cell, those that hold it shut first.

Between the gate (`gate.py`), whose answer has every cell with all its numbers, and the wire. Pure. Invariant: what is
left out is counted, and what is left out never holds the gate shut while a cell that has passed is listed.
"""

from typing import Final

from detectors.gate import CellAnswer, GateAnswer
from detectors.verdict import GateCell, GateReport

# The margins of a ring are some 30 to 150; beyond this they are counted only, to keep a verdict small.
CELLS_LISTED_MAX: Final = 64
_HOLDING_MAX: Final = 5
_LOG10_DIGITS: Final = 3
_SHARE_DIGITS: Final = 6
_DAYS_DIGITS: Final = 2


def report_of(answer: GateAnswer) -> GateReport:
    """Return what a verdict says of the gate's answer: the largest cells of those that hold it shut, then the others.

    Example:
        >>> from detectors.gate import CellWord
        >>> cell = CellAnswer(name="form=laptop", share=0.25, word=CellWord.UNCOVERED, device_days_needed=1993.4567)
        >>> told = GateAnswer(passed=False, log10_needed=1.30103, cells=[cell], age_lacking=[], ring="early")
        >>> told = report_of(told)
        >>> told.to, told.cells[0].word, told.cells[0].device_days_needed, told.log10_needed
        ('early', 'uncovered', 1993.46, 1.301)
    """
    ranked = sorted(answer.cells, key=lambda cell: (cell.passed, -cell.share, cell.name))
    return GateReport(
        to=answer.ring,
        passed=answer.passed,
        sentence=answer.sentence,
        log10_needed=round(answer.log10_needed, _LOG10_DIGITS),
        cells=[_cell(cell) for cell in ranked[:CELLS_LISTED_MAX]],
        lacking=list(answer.age_lacking),
        cells_more=max(0, len(ranked) - CELLS_LISTED_MAX),
    )


def holding_of(answer: GateAnswer) -> list[tuple[str, float, float, float, float | None]]:
    """Return the largest cells that hold the gate shut, as `Evidence.gate_holding` carries them."""
    return [
        (one.name, one.share, one.log10_evidence, one.device_days, one.device_days_needed)
        for one in sorted(answer.holding, key=lambda cell: (-cell.share, cell.name))[:_HOLDING_MAX]
    ]


def _cell(cell: CellAnswer) -> GateCell:
    return GateCell(
        name=cell.name,
        share=round(cell.share, _SHARE_DIGITS),
        word=cell.word.value,
        log10_evidence=round(cell.log10_evidence, _LOG10_DIGITS),
        device_days=round(cell.device_days, _DAYS_DIGITS),
        device_days_needed=_rounded(cell.device_days_needed),
        hours_needed=_rounded(cell.hours_needed),
        crashes_exposed=cell.crashes_exposed,
        crashes_control=cell.crashes_control,
    )


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, _DAYS_DIGITS)
