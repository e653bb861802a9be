"""The figures of the detectors' README: drawn from runs, none stale, each shown and readable."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from dashboards.svg import HEIGHT, WIDTH, Axis, Bar, Line, Rule, bar_chart, line_chart
from deploy.docs import figures
from deploy.docs.figures import FIGURES, FOLDER, main
from deploy.docs.pages import stale
from support.repository_files import REPOSITORY

README = (REPOSITORY / "detectors" / "README.md").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_what_the_detectors_say_today(name: str) -> None:
    """Drawn again from the same seeds; where a method changed on purpose, `make figures` draws it anew."""
    assert stale(FOLDER, {name: FIGURES[name]()}) == []


def test_the_readme_shows_every_figure_and_no_other() -> None:
    shown = re.findall(r"!\[([^\]]+)\]\(figures/([^)]+)\)", README)
    assert sorted(name for _, name in shown) == sorted(FIGURES) == sorted(path.name for path in FOLDER.iterdir())
    assert all(len(text) > 20 for text, _ in shown), "say in words what is to be seen"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_what_it_shows_and_follows_the_readers_theme(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    root = ET.fromstring(text)  # our own file
    for part in ("title", "desc"):
        found = root.find(f"{SVG}{part}")
        assert found is not None
        assert found.text
    assert "prefers-color-scheme: dark" in text
    # Nothing is fetched when somebody looks at it.
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []


@pytest.mark.parametrize("name", FIGURES)
def test_texts_stay_within_the_picture(name: str) -> None:
    """By the width of a letter in DejaVu Sans, a wide font; a title that is cut off was seen once."""
    for text in ET.parse(FOLDER / name).getroot().iter(f"{SVG}text"):  # our own file
        style, wide = text.get("class", ""), len(text.text or "") * (8.6 if "title" in text.get("class", "") else 7.2)
        x, y = float(text.get("x", "0")), float(text.get("y", "0"))
        assert 0 < y < HEIGHT
        if "transform" not in text.attrib:
            left = x - (wide if "end" in style else wide / 2 if "middle" in style else 0)
            assert left >= -8
            assert left + wide <= WIDTH + 8, text.text


def test_names_are_escaped_and_points_that_tell_nothing_left_out() -> None:
    drawn = line_chart(
        "a < b & c",
        "note",
        Axis("x", 10.0, (0, 10)),
        Axis("y", 1.0, (0, 1)),
        [Line("<line>", [(0, 0), (0, 0), (10, 1)], "a", (1, 0.5), band=[(0, 0.1, 0.2), (10, 0.3, 0.4)])],
        [Rule(0.5, "level", 1), Rule(5, "upright", 0.9, upright=True, before=True)],
    )
    root = ET.fromstring(drawn)  # our own text
    line = root.find(f"{SVG}polyline")
    assert line is not None
    assert line.get("points") == "64.0,344.0 736.0,64.0"
    assert "a < b & c" in {text.text for text in root.iter(f"{SVG}text")}


def test_bars_stand_on_the_axis_with_their_values_above() -> None:
    drawn = bar_chart("bars", "note", ["one"], Axis("y", 10.0, (0, 10)), [("s", "a", [Bar(5.0, 4.0, 6.0)])])
    root = ET.fromstring(drawn)  # our own text
    bar = next(one for one in root.iter(f"{SVG}rect") if one.get("class") == "fill-a")
    assert float(bar.get("y", "0")) + float(bar.get("height", "0")) == pytest.approx(344.0)
    assert "5.0" in {text.text for text in root.iter(f"{SVG}text")}


def test_stale_figures_are_named_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figures, "FIGURES", {"one.svg": lambda: "<svg/>\n"})
    folder = str(tmp_path / "figures")
    assert main(["--check", "--folder", folder]) == 1
    assert "one.svg" in capsys.readouterr().err
    assert main(["--folder", folder]) == 0
    assert main(["--check", "--folder", folder]) == 0
