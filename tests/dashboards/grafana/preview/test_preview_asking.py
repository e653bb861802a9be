"""What a preview asks is the committed query, filled in; what comes back is typed by what ClickHouse says of it."""

import pytest

from dashboards.grafana.preview.asking import Kind, answer_of, answered, view_of
from dashboards.grafana.preview.definition import PreviewError, committed
from support.previews import END, ROLLOUTS, START, Told, answering, compact

ROLLOUT = committed("cordon-rollout")
FLEET = committed("cordon-fleet")
RINGS: Told = ({"ring": "LowCardinality(String)"}, [["broad"], ["o'hare"]])


def test_the_committed_query_is_asked_with_its_macros_filled_in() -> None:
    asked: list[str] = []

    def ask(sql: str) -> bytes:
        asked.append(sql)
        return compact(ROLLOUTS)

    view = view_of(ROLLOUT, START, END, 768, {}, ask)
    answered(ROLLOUT.panel("First crashes").sql[0], "First crashes", view, ask)
    assert asked[0] == ROLLOUT.variables[0].sql
    assert asked[1].endswith(
        "WHERE rollout = 'r-1' AND (at >= toDateTime(1721361600) AND at <= toDateTime(1721365200))\n"
        "ORDER BY at, log_offset"
    )


def test_of_variables_all_values_are_chosen_and_of_those_that_hold_one_the_first() -> None:
    two: Told = (ROLLOUTS[0], [["r-2", "b"], ["r-1", "a"]])
    assert view_of(ROLLOUT, START, END, 768, {}, answering(two, values=two)).variables == {"rollout": ["r-2"]}
    found = view_of(FLEET, START, END, 768, {"product": ["vpn"]}, answering(RINGS, values=RINGS)).variables
    assert found["product"] == ["vpn"]
    assert found["ring"] == ["broad", "o'hare"]


def test_a_variable_that_the_board_lacks_is_answered_with_those_it_has() -> None:
    with pytest.raises(PreviewError, match="no variable 'rollot'; its variables: rollout"):
        view_of(ROLLOUT, START, END, 768, {"rollot": ["r-1"]}, answering(ROLLOUTS))


def test_a_variable_without_a_value_is_an_error() -> None:
    with pytest.raises(PreviewError, match="'rollout' has no value in this time"):
        view_of(ROLLOUT, START, END, 768, {}, answering(ROLLOUTS, values=(ROLLOUTS[0], [])))


def test_a_point_stands_for_a_round_time_no_shorter_than_a_pixel() -> None:
    views = [view_of(ROLLOUT, START, END, points, {}, answering(ROLLOUTS)) for points in (3600, 700, 8)]
    assert [view.step_seconds for view in views] == [1, 10, 600]


def test_answers_are_typed() -> None:
    types = {
        "at": "DateTime64(3, 'UTC')", "minute": "Nullable(DateTime('UTC'))", "n": "UInt64", "x": "Nullable(Float64)",
        "name": "LowCardinality(Nullable(String))", "all": "Array(UInt8)",
    }  # fmt: skip
    row = ["2024-07-19 04:00:00.500", "2024-07-19 04:00:00", "18446744073709551615", None, "a", [1, 2]]
    found = answer_of(compact((types, [row])))
    assert found.kinds == [Kind.TIME, Kind.TIME, Kind.NUMBER, Kind.NUMBER, Kind.TEXT, Kind.TEXT]
    assert found.rows == [[1721361600.5, 1721361600.0, 18446744073709551615.0, None, "a", "[1,2]"]]


def test_an_answer_of_another_form_is_an_error() -> None:
    view = view_of(ROLLOUT, START, END, 768, {}, answering(ROLLOUTS))
    with pytest.raises(PreviewError, match="malformed"):
        answered("SELECT 1", "one", view, lambda _: b"<html>")


def test_a_macro_that_is_not_known_is_an_error() -> None:
    view = view_of(ROLLOUT, START, END, 768, {}, answering(ROLLOUTS))
    with pytest.raises(PreviewError, match=r"\$__dateFilter is not known here"):
        answered("SELECT 1 WHERE $__dateFilter(at)", "one", view, answering(ROLLOUTS))
