"""States stand from their moment to the next, in the colours they have everywhere."""

import pytest

from dashboards.grafana.macros import View
from dashboards.grafana.preview.asking import Answer, Kind
from dashboards.grafana.preview.definition import PreviewError, committed
from dashboards.grafana.preview.states import STRETCHES_MAX, TimeLine, time_line
from support.previews import END, START

VIEW = View(START, END, 10, {})
PANEL = committed("cordon-rollout").panel("Switch (state-timeline)")
# One pixel a second, beside what the names take.
WIDTH = 3600 + 80


def states(*found: tuple[float, str | None]) -> Answer:
    """Return states by the minute since the start."""
    rows = [[START.timestamp() + 60 * minute, state] for minute, state in found]
    return Answer(["time", "state"], [Kind.TIME, Kind.TEXT], rows)


def made(*found: tuple[float, str | None]) -> TimeLine:
    line = time_line(PANEL, states(*found), VIEW, WIDTH)
    assert line is not None
    return line


def test_a_state_stands_until_the_next_and_the_last_until_the_end() -> None:
    ((name, stretches),) = made((10, "watching"), (20, "held"), (50, "killed")).rows
    assert name == "state"
    assert [(one.text, one.left - 80, one.length) for one in stretches] == [
        ("watching", 600, 600), ("held", 1200, 1800), ("killed", 3000, 600),
    ]  # fmt: skip


def test_a_state_has_its_colour_and_a_word_that_can_be_read() -> None:
    ((_, stretches),) = made((0, "watching"), (10, "held"), (20, "killed"), (30, "of no mapping")).rows
    assert [one.color for one in stretches] == ["#56B4E9", "#E69F00", "#D55E00", "#8C8C8C"]
    assert {one.ink for one in stretches} == {"#111217"}


def test_the_same_state_said_again_is_one_stretch_and_a_null_is_none() -> None:
    ((_, stretches),) = made((0, "held"), (5, "held"), (10, None), (20, "held"), (30, "held")).rows
    assert [(one.left - 80, one.length) for one in stretches] == [(0, 600), (1200, 2400)]


def test_a_word_that_does_not_fit_is_not_written() -> None:
    ((_, stretches),) = made((0, "watching"), (1, "killed")).rows
    assert [one.fits for one in stretches] == [False, True]


def test_times_are_few_round_and_in_utc() -> None:
    ticks = made((0, "held")).ticks
    assert [text for _, text in ticks] == ["04:00", "04:10", "04:20", "04:30", "04:40", "04:50", "05:00"]
    assert [at - 80 for at, _ in ticks] == [0, 600, 1200, 1800, 2400, 3000, 3600]


def test_no_more_than_so_many_stretches_are_drawn_and_the_rest_is_counted() -> None:
    found = [(number / 60, ("held", "killed")[number % 2]) for number in range(STRETCHES_MAX + 7)]
    line = made(*found)
    assert (len(line.rows[0][1]), line.left_out) == (STRETCHES_MAX, 7)


def test_nothing_is_nothing_and_moments_are_needed() -> None:
    assert time_line(PANEL, states(), VIEW, WIDTH) is None
    with pytest.raises(PreviewError, match="a column of moments and one of states"):
        time_line(PANEL, Answer(["state"], [Kind.TEXT], [["held"]]), VIEW, WIDTH)
