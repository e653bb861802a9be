"""Numbers and cells have the unit, the words and the colours that the board gives them."""

from dataclasses import replace

import pytest

from dashboards.grafana.preview.asking import Answer, Kind
from dashboards.grafana.preview.cells import ROWS_MAX, Cell, stats, table
from dashboards.grafana.preview.definition import PreviewError, committed
from dashboards.grafana.preview.values import shown

ROLLOUT, FLEET = committed("cordon-rollout"), committed("cordon-fleet")
STATE = Answer(["state", "number"], [Kind.TEXT, Kind.NUMBER], [["held", 1.0], ["killed", 2.0]])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12345.678, "none", "12346"), (6.2345, "none", "6.23"), (0.0, "none", "0"), (-1.5, "none", "-1.5"),
        (0.0001234, "none", "0.000123"), (1500.0, "short", "1.5 K"), (2.5e6, "short", "2.5 Mil"),
        (999.0, "short", "999"), (0.5, "percentunit", "50%"), (1.234, "percentunit", "123%"), (0.25, "s", "250 ms"),
        (90.0, "s", "1.5 mins"),
        (0.5, "h", "30 mins"), (48.0, "h", "2 days"),
    ],
)  # fmt: skip
def test_a_value_has_its_unit(value: float, unit: str, text: str) -> None:
    assert shown(value, {"unit": unit}) == text


def test_a_unit_that_is_not_known_is_an_error() -> None:
    with pytest.raises(PreviewError, match="'furlong' is not known here; known: h, none, percentunit, s, short"):
        shown(1.0, {"unit": "furlong"})


def test_a_state_fills_its_panel_with_the_colour_it_has_everywhere() -> None:
    (stat,) = stats(ROLLOUT.panel("Switch (stat)"), STATE)
    assert stat.cell == Cell("killed", "#111217", "#D55E00")
    assert stat.name == ""


@pytest.mark.parametrize(("value", "shade"), [(0.0, "#0072B2"), (0.99, "#0072B2"), (1.0, "#D55E00"), (7.0, "#D55E00")])
def test_a_number_has_the_colour_of_the_threshold_it_has_reached(value: float, shade: str) -> None:
    (stat,) = stats(FLEET.panel("Rollouts stopped"), Answer(["stopped"], [Kind.NUMBER], [[value]]))
    assert stat.cell.color == shade
    assert stat.cell.background is None


def test_a_number_is_the_last_that_is_not_null_of_the_column_that_the_panel_names() -> None:
    answer = Answer(["crashes_control", "crashes_exposed"], [Kind.NUMBER] * 2, [[3.0, 4.0], [9.0, 17.0], [1.0, None]])
    (stat,) = stats(ROLLOUT.panel("Exposed crashes"), answer)
    assert stat.cell.text == "17"


def test_a_number_without_rows_is_nothing() -> None:
    assert stats(ROLLOUT.panel("Exposed crashes"), Answer(["crashes_exposed"], [Kind.NUMBER], [])) == []


def test_another_way_to_reduce_is_an_error() -> None:
    panel = ROLLOUT.panel("Evidence")
    options = {**panel.options, "reduceOptions": {"calcs": ["mean"], "fields": "", "values": False}}
    with pytest.raises(PreviewError, match=r"mean.*lastNotNull"):
        stats(replace(panel, options=options), STATE)


def test_cells_have_units_words_colours_and_widths() -> None:
    names, kinds = ["ring", "begins", "push_seconds", "share"], [Kind.TEXT, Kind.TIME, Kind.NUMBER, Kind.NUMBER]
    found = table(ROLLOUT.panel("Rings"), Answer(names, kinds, [["canary", 1721361600.0, 60.0, 0.5]]))
    assert [cell.text for cell in found.rows[0]] == ["canary", "2024-07-19 04:00:00", "1 min", "50%"]
    assert [cell.number for cell in found.rows[0]] == [False, False, True, True]
    events = table(
        ROLLOUT.panel("Events of the switch"), Answer(["state", "sentence"], [Kind.TEXT] * 2, [["held", "why"]])
    )
    assert events.columns == [("state", None), ("sentence", 560)]
    assert [cell.color for cell in events.rows[0]] == ["#E69F00", None]


def test_cells_are_filled_by_their_value_and_can_be_read() -> None:
    answer = Answer(["os_build", "devices"], [Kind.TEXT, Kind.NUMBER], [["a", 0.0], ["b", 50.0], ["c", 100.0]])
    rows = table(ROLLOUT.panel("Crashed devices by OS build and ring"), answer).rows
    assert [row[1].background for row in rows] == ["#F7FBFF", "#7CB6D8", "#0072B2"]
    assert [row[1].color for row in rows] == ["#111217", "#111217", "#FFFFFF"]
    assert rows[0][0] == Cell("a")


def test_a_cell_without_a_value_says_so() -> None:
    answer = Answer(["share"], [Kind.NUMBER], [[None]])
    assert table(ROLLOUT.panel("Rings"), answer).rows[0][0].text == "nothing in this time"


def test_a_long_table_says_how_much_more_there_is() -> None:
    found = table(ROLLOUT.panel("Rings"), Answer(["share"], [Kind.NUMBER], [[0.5]] * (ROWS_MAX + 3)))
    assert (len(found.rows), found.left_out) == (ROWS_MAX, 3)
