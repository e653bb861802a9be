"""The page of a preview: whole in itself, honest about what it is, and deaf to what labels and texts try."""

import base64
import hashlib
import json
import re

import pytest

from dashboards.grafana.preview.asking import view_of
from dashboards.grafana.preview.definition import committed
from dashboards.grafana.preview.page import MARKS_LISTED_MAX, preview
from support.previews import END, EVIL, START, Told, answering, changed, made_of

EVIDENCE = "Evidence of harm (power of ten)"
TIME = "2024-07-19 04:30:00"
RISING: Told = (
    {"time": "DateTime", "may_kill": "Float64", "needed_to_kill": "Float64"},
    [["2024-07-19 04:10:00", 0.5, 6.0], [TIME, 7.25, 6.0]],
)
MARKS: Told = (
    {"time": "Nullable(DateTime64(3, 'UTC'))", "text": "String"}, [["2024-07-19 04:12:34.500", "kill: <b>why</b>"]],
)  # fmt: skip


def page(uid: str, label: str, told: Told, marks: Told | None = None) -> str:
    board = committed(uid)
    ask = answering(told, marks) if marks else answering(told)
    return preview(board, board.panel(label), view_of(board, START, END, 768, {}, ask), ask)


def test_it_says_what_it_shows_of_when_and_that_no_grafana_drew_it() -> None:
    text = page("cordon-rollout", EVIDENCE, RISING)
    caption = " ".join(text.partition("<figcaption>")[2].partition("</figcaption>")[0].split())
    assert "Preview, drawn by Cordon from the committed definition and query" in caption
    assert "<b>Cordon / Rollout</b>; this is not Grafana." in caption
    assert "2024-07-19 04:00:00 to 2024-07-19 05:00:00 UTC; rollout r-1." in caption
    assert f"<h1>{EVIDENCE}</h1>" in text
    assert "decisions latch at the first crossing" in text


def test_the_script_is_given_the_answer() -> None:
    text = page("cordon-rollout", EVIDENCE, RISING, MARKS)
    found = json.loads(text.partition('id="drawing">')[2].partition("</script>")[0])
    assert [line["values"] for line in found["lines"]] == [[0.5, 7.25], [6.0, 6.0]]
    assert [line["color"] for line in found["lines"]] == ["#0072B2", "#D55E00"]
    assert (found["start"], found["end"]) == (START.timestamp(), END.timestamp())
    assert {(mark["at"], mark["color"]) for mark in found["marks"]} == {
        (1721362354.5, "#0072B2"), (1721362354.5, "#D55E00"),
    }  # fmt: skip


def test_annotations_are_listed_with_their_times_and_no_more_than_fit() -> None:
    assert "<time>" not in page("cordon-rollout", EVIDENCE, RISING)
    text = page("cordon-rollout", EVIDENCE, RISING, MARKS)
    assert "<time>04:12:34</time><span>kill: &lt;b&gt;why&lt;/b&gt;</span>" in text
    many: Told = (MARKS[0], [["2024-07-19 04:12:34", f"mark {number}"] for number in range(30)])
    text = page("cordon-rollout", EVIDENCE, RISING, many)
    assert text.count("<time>") == MARKS_LISTED_MAX
    assert f"and {2 * 30 - MARKS_LISTED_MAX} more" in text


@pytest.mark.parametrize(
    ("label", "kinds"),
    [
        (EVIDENCE, {"time": "DateTime", "may_kill": "Float64"}),
        ("Exposed crashes", {"crashes_exposed": "UInt64"}),
        ("Rings", {"ring": "String", "share": "Float64"}),
    ],
)
def test_nothing_is_shown_in_the_words_of_the_panel(label: str, kinds: dict[str, str]) -> None:
    text = page("cordon-rollout", label, (kinds, []))
    assert '<p class="nothing">nothing in this time</p>' in text
    assert "<script" not in text


def test_a_panel_without_such_words_says_what_grafana_says() -> None:
    field: dict[str, object] = {"defaults": {}, "overrides": []}
    board = changed(made_of("cordon-rollout"), EVIDENCE, fieldConfig=field)
    ask = answering((RISING[0], []))
    text = preview(board, board.panel(EVIDENCE), view_of(board, START, END, 768, {}, ask), ask)
    assert '<p class="nothing">No data</p>' in text


def test_hostile_labels_titles_and_texts_are_text() -> None:
    shown: list[str] = []
    told: Told = ({"time": "DateTime", "ring": "String", "n": "Float64"}, [[TIME, EVIL, 1.0]])
    shown.append(page("cordon-rollout", EVIDENCE, told, (MARKS[0], [[TIME, EVIL]])))
    shown.append(page("cordon-rollout", "Rings", ({EVIL: "String", "share": "Float64"}, [[EVIL, 0.5]])))
    shown.append(page("cordon-rollout", "Switch (stat)", ({"state": "String"}, [[EVIL]])))
    board = changed(made_of("cordon-rollout"), EVIDENCE, title=EVIL, description=EVIL)
    ask = answering(RISING)
    shown.append(preview(board, board.panel(EVIL), view_of(board, START, END, 768, {"rollout": [EVIL]}, ask), ask))
    for text in shown:
        assert "<img" not in text
        assert "<script>alert" not in text
        assert "&lt;img src=x" in text


def test_characters_that_turn_or_hide_text_are_shown_as_codes() -> None:
    text = page("cordon-rollout", "Switch (stat)", ({"state": "String"}, [["kil\u202eled\x00"]]))
    assert "kil\\u202eled\\x00" in text


def test_only_what_was_written_here_may_run_and_nothing_is_fetched() -> None:
    text = page("cordon-rollout", EVIDENCE, RISING, MARKS)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    parts = re.findall(r"<script>(.*?)</script>|<style>(.*?)</style>", text, re.DOTALL)
    assert len(parts) == 3
    for part in parts:
        digest = base64.b64encode(hashlib.sha256("".join(part).encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not re.search(r"(src|href)=", text.partition("<script>")[0])
