"""What a preview knows of a board is what its JSON says; names that are not there are answered with those that are."""

import pytest

from dashboards.grafana.build import BOARDS
from dashboards.grafana.preview.definition import PreviewError, color, committed, uids
from support.previews import changed, made_of

EVIDENCE = "Evidence of harm (power of ten)"


def test_every_committed_board_can_be_read() -> None:
    assert uids() == sorted(board.uid for board in BOARDS)
    for uid in uids():
        assert committed(uid).panels


def test_an_unknown_board_is_answered_with_those_there_are() -> None:
    with pytest.raises(PreviewError, match=r"no board 'cordon-rollot'.*cordon-fleet.*cordon-rollout"):
        committed("cordon-rollot")


def test_an_unknown_panel_is_answered_with_those_there_are() -> None:
    with pytest.raises(PreviewError, match=r"no panel 'Evidense'.*'Crash-rate ratio'.*'Devices'"):
        committed("cordon-rollout").panel("Evidense")


def test_two_panels_of_one_title_are_told_apart_by_their_kind() -> None:
    board = committed("cordon-rollout")
    assert board.panel("Switch (stat)").kind == "stat"
    with pytest.raises(PreviewError, match=r"'Switch \(stat\)'.*'Switch \(state-timeline\)'"):
        board.panel("Switch")


def test_a_kind_of_panel_that_is_not_drawn_is_answered_with_those_that_are() -> None:
    board = changed(made_of("cordon-rollout"), EVIDENCE, type="piechart")
    with pytest.raises(PreviewError, match="'piechart'; previews are made of: timeseries, state-timeline, stat, table"):
        board.panel(EVIDENCE)


def test_a_panel_that_asks_prometheus_is_refused() -> None:
    with pytest.raises(PreviewError, match="asks Prometheus"):
        committed("cordon-pipeline").panel("Dead letters")


def test_a_field_has_the_defaults_and_what_its_overrides_make_of_them() -> None:
    panel = committed("cordon-rollout").panel(EVIDENCE)
    plain, dashed = panel.config("may_kill"), panel.config("needed_to_kill")
    assert (plain["unit"], plain["custom.lineWidth"], plain["noValue"]) == ("none", 2, "nothing in this time")
    assert plain["color"] == {"mode": "fixed", "fixedColor": "#0072B2"}
    assert "custom.lineStyle" not in plain
    assert dashed["color"]["fixedColor"] == "#D55E00"
    assert dashed["custom.lineStyle"]["dash"] == [8, 6]
    assert (plain["custom.fillOpacity"], dashed["custom.fillOpacity"]) == (8, 0)


def test_a_rule_that_is_not_known_is_an_error() -> None:
    rule = {"matcher": {"id": "byType", "options": "number"}, "properties": []}
    board = changed(made_of("cordon-rollout"), EVIDENCE, fieldConfig={"defaults": {}, "overrides": [rule]})
    with pytest.raises(PreviewError, match=r"'byType'.*byName and byRegexp"):
        board.panel(EVIDENCE).config("may_kill")


@pytest.mark.parametrize("text", ["red", "#0072B2; } body { display: none", "rgb(0, 0, 0)", "#0072B2\n"])
def test_a_colour_that_could_be_more_than_one_is_refused(text: str) -> None:
    with pytest.raises(PreviewError, match="is not known here"):
        color(text)
