import hashlib
import re
from pathlib import Path

import pytest

from dashboards.console.overview import Standing
from dashboards.console.rendering import FOLDER, RATIO_MAX, Renderer, moment, number, plain, ratio, share, span
from dashboards.grafana import panels
from support.repository_files import REPOSITORY

DASH = "\N{EN DASH}"
CSS = (FOLDER / "static" / "console.css").read_text()
_COLOURS = {
    "green": panels.GREEN, "sky": panels.SKY, "orange": panels.ORANGE, "red": panels.RED, "blue": panels.BLUE,
    "grey": panels.GREY, "purple": panels.PURPLE, "yellow": panels.YELLOW,
}  # fmt: skip


def test_states_have_the_colours_of_the_boards() -> None:
    named = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", CSS))
    assert {name: named[name].upper() for name in _COLOURS} == _COLOURS
    for state, color in panels.STATE_COLORS.items():
        rule = re.search(rf"\.s-{state}\b[^{{]*\{{ background: var\(--(\w+)\)", CSS)
        drawn = _COLOURS[rule.group(1)] if rule else panels.GREY
        assert drawn == color, state


@pytest.mark.parametrize("kind", ["killed", "held", "paused", "rising", "watching", "observing", "released", "muted"])
def test_every_standing_has_a_sign_of_its_own(kind: str) -> None:
    others = {"killed", "held", "paused", "rising", "watching", "observing", "released", "muted"} - {kind}
    assert Standing(kind, kind).mark not in {Standing(other, other).mark for other in others}


def test_the_plot_library_is_the_one_that_the_readme_names() -> None:
    readme = (FOLDER / "README.md").read_text()
    for name in ("uPlot.iife.min.js", "uPlot.min.css"):
        digest = hashlib.sha256((FOLDER / "static" / "vendor" / name).read_bytes()).hexdigest()
        assert digest in readme, name
    axe = REPOSITORY / "tests" / "support" / "axe"
    assert hashlib.sha256((axe / "axe.min.js").read_bytes()).hexdigest() in (axe / "README.md").read_text()


def test_nothing_in_a_template_is_passed_unescaped_but_sections_rendered_before() -> None:
    for path in (FOLDER / "templates").rglob("*.html"):
        text = path.read_text()
        safe = re.findall(r"\{\{[^}]*\|\s*safe[^}]*\}\}", text)
        assert all(re.fullmatch(r"\{\{ live\.\w+\[0\] \| safe \}\}", one) for one in safe), path
        assert "autoescape" not in text
        assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=|javascript:", text), path


def test_no_page_asks_for_anything_of_another_site() -> None:
    for path in FOLDER.rglob("*"):
        if path.suffix in {".html", ".css", ".js"} and "vendor" not in path.parts:
            assert "//" not in re.sub(r"(^|\s)//.*|/\*.*?\*/", "", path.read_text()), path


def test_static_files_are_named_by_their_content() -> None:
    files = Renderer().files
    url = files.url("console.css")
    digest, name = url.split("/")[-2:]
    found = files.get(digest, name)
    assert found is not None
    assert found[1].startswith("text/css")
    assert files.get("0" * 16, name) is None
    assert files.get(digest, "../session.py") is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("csagent.sys", "csagent.sys"),
        ("a\x00b\x1b[31m", "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31m"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}exe.gpj", "\N{REPLACEMENT CHARACTER}exe.gpj"),
        ("line\nline\N{ZERO WIDTH SPACE}", "line\N{REPLACEMENT CHARACTER}line\N{REPLACEMENT CHARACTER}"),
        (
            "\N{GREEK SMALL LETTER ALPHA} und \N{LATIN SMALL LETTER O WITH DIAERESIS}",
            "\N{GREEK SMALL LETTER ALPHA} und \N{LATIN SMALL LETTER O WITH DIAERESIS}",
        ),
    ],
)
def test_characters_that_steer_how_others_are_shown_are_replaced(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_numbers_and_times_are_written_for_people() -> None:
    assert [number(None), number(8_500_000), number(1.25, 1), number(float("inf"))] == [
        DASH,
        "8,500,000",
        "1.2",
        "\N{INFINITY}",
    ]
    assert [ratio(93.337), ratio(RATIO_MAX + 1), ratio(None)] == ["93.34", "over 10,000", DASH]
    assert [share(0.1234), share(None)] == ["12.3 %", DASH]
    assert [span(0), span(59.9), span(61), span(7200), span(90_061), span(None)] == [
        "0 s", "59 s", "1 min 1 s", "2 h", "1 d 1 h", DASH,
    ]  # fmt: skip
    assert moment(1_721_621_340_123) == '<time datetime="2024-07-22T04:09:00.123Z">2024-07-22 04:09:00Z</time>'
    assert moment(0) == DASH


def test_vendored_files_carry_their_licence() -> None:
    assert "MIT" in Path(FOLDER / "static" / "vendor" / "uPlot.LICENSE.txt").read_text()
