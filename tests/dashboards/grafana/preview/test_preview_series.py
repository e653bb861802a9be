"""A plot's lines have the names, colours, dashes, units and ranges that the board gives them."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.grafana.macros import View
from dashboards.grafana.preview.asking import Answer, Kind, answer_of
from dashboards.grafana.preview.definition import Panel, PreviewError, committed
from dashboards.grafana.preview.series import PALETTE, SERIES_MAX, Drawing, Plot, plot, series_of
from dashboards.grafana.preview.values import ticks
from support.previews import END, START, compact

VIEW = View(START, END, 10, {})
AT = START.timestamp()
EVIDENCE = committed("cordon-rollout").panel("Evidence of harm (power of ten)")
RATIO = committed("cordon-rollout").panel("Crash-rate ratio")
BARS = committed("cordon-fleet").panel("Crashed devices by OS build")
SHARES = committed("cordon-fleet").panel("Check-ins by ring, of normal")


def wide(*names: str, rows: list[list[float | None]]) -> Answer:
    """Return moments, in minutes since the start, with a column of numbers of each name."""
    data = [[AT + 60 * float(row[0] or 0), *row[1:]] for row in rows]
    return Answer(["time", *names], [Kind.TIME, *[Kind.NUMBER] * len(names)], data)


def by_label(*rows: tuple[float, str, float], value: str = "n") -> Answer:
    data = [[AT + 60 * minute, label, float(number)] for minute, label, number in rows]
    return Answer(["time", "ring", value], [Kind.TIME, Kind.TEXT, Kind.NUMBER], data)


def made(panel: Panel, *answers: Answer) -> Plot:
    return plot(panel, answers, VIEW, [], 200)


def drawn(panel: Panel, *answers: Answer) -> Drawing:
    drawing = made(panel, *answers).drawing
    assert drawing is not None
    return drawing


def test_lines_have_the_colours_dashes_and_widths_of_the_board() -> None:
    names = ("may_hold", "may_kill", "needed_to_hold", "needed_to_kill")
    found = made(EVIDENCE, wide(*names, rows=[[0, 1.0, 0.5, 3.0, 6.0], [1, 9.0, 7.0, 3.0, 6.0]]))
    assert found.legend == [
        ("may_hold", "#56B4E9", False), ("may_kill", "#0072B2", False),
        ("needed_to_hold", "#E69F00", True), ("needed_to_kill", "#D55E00", True),
    ]  # fmt: skip
    assert found.drawing is not None
    assert [line.dash for line in found.drawing.lines] == [[], [], [8, 6], [8, 6]]
    assert {line.width for line in found.drawing.lines} == {2}
    assert [line.fill for line in found.drawing.lines] == [0.08, 0.08, 0, 0]


def test_where_the_board_leaves_the_colour_open_neighbours_differ() -> None:
    found = made(SHARES, by_label((0, "broad", 1), (0, "canary", 1), (0, "early", 1), value="check_ins_of_normal"))
    assert [shade for _, shade, _ in found.legend] == list(PALETTE[:3])


def test_series_are_named_as_grafana_names_them() -> None:
    assert [one.name for one in series_of(wide("low", "high", rows=[[0, 1.0, 2.0]]))] == ["low", "high"]
    assert [one.name for one in series_of(by_label((0, "early", 1), (0, "canary", 2)))] == ["n canary", "n early"]
    types = {"time": "DateTime", "ring": "String", "os_build": "String", "n": "UInt64"}
    told = answer_of(compact((types, [["2024-07-19 04:00:00", "canary", "22631", "7"]])))
    assert [one.name for one in series_of(told)] == ['n {os_build="22631", ring="canary"}']


def test_values_at_the_axis_have_the_unit_of_the_board() -> None:
    found = drawn(SHARES, by_label((0, "canary", 0.25), (1, "canary", 1.0)))
    assert [text for _, text in found.ticks] == ["0%", "20%", "40%", "60%", "80%", "100%"]
    assert (found.low, found.high) == (0, 1.08)


def test_an_axis_begins_at_the_least_value_of_the_board() -> None:
    assert drawn(EVIDENCE, wide("may_kill", rows=[[0, 5.0], [1, 6.0]])).low == 0


def test_a_logarithmic_axis_has_powers_of_ten_and_leaves_out_what_has_none() -> None:
    found = drawn(RATIO, wide("low", "ratio", "high", rows=[[0, 0.0, 20.0, 3000.0], [1, 2.0, 40.0, math.inf]]))
    assert found.log
    assert (found.low, found.high) == (1, 10_000)
    assert [value for value, _ in found.ticks] == [1, 10, 100, 1000, 10_000]
    assert [line.values for line in found.lines] == [[None, 2.0], [20.0, 40.0], [3000.0, None]]


def test_an_interval_is_filled_between_its_bounds() -> None:
    (band,) = drawn(RATIO, wide("low", "ratio", "high", rows=[[0, 2.0, 20.0, 3000.0]])).bands
    assert (band.upper, band.lower, band.color) == (2, 0, "#56B4E9")
    assert not drawn(RATIO, wide("ratio", "high", rows=[[0, 20.0, 3000.0]])).bands


def test_bars_stand_on_each_other() -> None:
    found = drawn(BARS, by_label((0, "a", 2), (0, "b", 3), (1, "b", 1), (2, "a", 5)))
    assert found.bars
    assert [line.values for line in found.lines] == [[2, 0, 5], [5, 1, 5]]
    assert [line.width for line in found.lines] == [0, 0]


def test_a_line_goes_on_over_a_short_gap_and_breaks_at_a_long_one() -> None:
    """The boards connect what is no more than five minutes apart."""
    answer = by_label((0, "a", 1), (1, "b", 1), (4, "a", 1), (5, "b", 1), (6, "b", 1), (11, "a", 1))
    first, second = drawn(SHARES, answer).lines
    assert first.values == [1, "", 1, None, None, 1]
    assert second.values == [None, 1, "", 1, 1, None]


def test_no_more_than_so_many_lines_are_drawn_and_the_rest_is_counted() -> None:
    found = made(SHARES, by_label(*((0, f"ring-{number:03}", 1.0) for number in range(SERIES_MAX + 5))))
    assert (len(found.legend), found.left_out) == (SERIES_MAX, 5)


def test_no_rows_and_no_values_are_nothing() -> None:
    assert made(EVIDENCE, wide("may_kill", rows=[])).drawing is None
    assert made(EVIDENCE, wide("may_kill", rows=[[0, None]])).drawing is None


def test_a_plot_needs_moments_and_numbers() -> None:
    with pytest.raises(PreviewError, match="a column of moments and one of numbers"):
        series_of(Answer(["n"], [Kind.NUMBER], [[1.0]]))


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_round_and_within_the_axis(low: float, length: float) -> None:
    high = low + length
    found: list[Any] = [value for value, _ in ticks(low, high, "short", log=False)]
    assert len(found) <= 8
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert all(low - slack <= value <= high + slack for value in found)
