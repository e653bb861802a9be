"""The gate's answer in a verdict: what holds it shut comes first, what is not listed is counted."""

import doctest

import detectors.gate_report
from detectors.gate import CellAnswer, CellWord, GateAnswer
from detectors.gate_report import CELLS_LISTED_MAX, holding_of, report_of


def cell(number: int, word: CellWord = CellWord.EXCESS, share: float = 0.01) -> CellAnswer:
    return CellAnswer(name=f"model={number}", share=share, word=word)


def answer(cells: list[CellAnswer], ring: str = "early", **fields: object) -> GateAnswer:
    values: dict[str, object] = {"passed": False, "log10_needed": 1.3, "age_lacking": [], **fields}
    return GateAnswer(cells=cells, ring=ring, **values)  # type: ignore[arg-type]  # test helper


def test_the_doctest_holds() -> None:
    assert doctest.testmod(detectors.gate_report).failed == 0


def test_cells_that_hold_it_shut_come_first_the_largest_of_them_at_the_top() -> None:
    told = [cell(1, share=0.9), cell(2, CellWord.LACKING, 0.1), cell(3, CellWord.UNCOVERED, 0.2)]
    report = report_of(answer(told))
    assert [(one.name, one.word) for one in report.cells] == [
        ("model=3", "uncovered"),
        ("model=2", "lacking"),
        ("model=1", "excess"),
    ]
    assert [name for name, *_ in holding_of(answer(told))] == ["model=3", "model=2"]


def test_beyond_the_listed_ones_cells_are_counted_and_none_that_holds_is_left_out_for_one_that_passed() -> None:
    told = [cell(number, share=0.5) for number in range(100)]
    told += [cell(number, CellWord.ONE_GROUP, 0.001) for number in range(100, 110)]
    report = report_of(answer(told))
    assert (len(report.cells), report.cells_more) == (CELLS_LISTED_MAX, 110 - CELLS_LISTED_MAX)
    assert sum(one.word == "one_group" for one in report.cells) == 10


def test_what_the_update_has_not_been_through_is_told_with_the_ring_and_the_sentence() -> None:
    lacking = ["0 exposed devices have booted since < 1"]
    report = report_of(answer([], "broad", age_lacking=lacking))
    assert (report.to, report.passed, report.lacking) == ("broad", False, lacking)
    assert lacking[0] in report.sentence
