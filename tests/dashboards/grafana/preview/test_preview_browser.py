"""Previews in a real browser: nothing complains, everything is drawn, and hostile texts stay texts."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from dashboards.grafana.preview.asking import view_of
from dashboards.grafana.preview.definition import PreviewError, committed
from dashboards.grafana.preview.page import preview, width_of
from dashboards.grafana.preview.picture import shoot
from support.browser import chromium, tab
from support.previews import END, EVIL, START, Told, answering

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TIMES = [f"2024-07-19 04:{minute:02}:00" for minute in range(10, 50)]
BY_RING: Told = (
    {"time": "DateTime", "ring": "String", "n": "Float64"},
    [[at, ring, float(number)] for number, at in enumerate(TIMES) for ring in (EVIL, "canary")],
)
RATIO: Told = (
    {"time": "DateTime", "low": "Float64", "ratio": "Float64", "high": "Float64", "tolerated": "Float64"},
    [[at, 2.0, 20.0 + number, 3000.0, 1.5] for number, at in enumerate(TIMES)],
)
MARKS: Told = ({"time": "DateTime64(3, 'UTC')", "text": "String"}, [[TIMES[3], EVIL]])
RINGS: Told = ({"ring": "String", "push_seconds": "UInt32", "share": "Float64"}, [[EVIL, 60, 0.5], ["b", 90, 1.0]])
STATES: Told = (
    {"time": "DateTime", "verdict": "String"},
    [[at, word] for at, word in zip(TIMES[::10], ("watching", EVIL, "regressed", "regressed"), strict=True)],
)
PANELS = {
    "line": ("cordon-fleet", "Check-ins by ring, of normal", BY_RING),
    "bars": ("cordon-fleet", "Crashed devices by OS build", BY_RING),
    "interval": ("cordon-rollout", "Crash-rate ratio", RATIO),
    "table": ("cordon-rollout", "Rings", RINGS),
    "states": ("cordon-rollout", "Verdict", STATES),
    "stat": ("cordon-rollout", "Switch (stat)", ({"state": "String"}, [["killed"]])),
    "empty": ("cordon-rollout", "Crash-rate ratio", (RATIO[0], [])),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def written(folder: Path, name: str) -> tuple[Path, int]:
    """Write a preview; return its file and its width."""
    uid, label, told = PANELS[name]
    board = committed(uid)
    panel = board.panel(label)
    ask = answering(told, MARKS, ({"value": "String"}, [["r-1"]]))
    file = folder / f"{name}.html"
    file.write_text(preview(board, panel, view_of(board, START, END, width_of(panel), {}, ask), ask), encoding="utf-8")
    return file, width_of(panel)


@pytest.mark.parametrize("name", PANELS)
def test_it_is_drawn_without_complaint_open_to_all_and_asks_nobody(browser: Browser, tmp_path: Path, name: str) -> None:
    file, width = written(tmp_path, name)
    with tab(browser, file.as_uri(), (width, 800)) as found:
        asked: list[str] = []
        found.page.on("request", lambda request: asked.append(request.url))
        found.page.goto(file.as_uri())
        drawn = name in ("line", "bars", "interval")
        assert found.page.locator("canvas").count() == int(drawn)
        assert found.page.locator("img").count() == 0
        assert found.barriers() == []
        assert found.wider_than_the_screen() == 0
        assert asked == [file.as_uri()]


def test_lines_have_their_colours_on_the_canvas(browser: Browser, tmp_path: Path) -> None:
    """The bounds are sky blue by the board, what is tolerated is grey, and a decision's mark is red."""
    file, width = written(tmp_path, "interval")
    with tab(browser, file.as_uri(), (width, 800)) as found:
        found.page.goto(file.as_uri())
        colors = found.page.evaluate(
            "() => { const c = document.querySelector('canvas'), seen = {};"
            " const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            " for (let i = 0; i < data.length; i += 4) { if (data[i + 3] < 255) continue;"
            " const key = [...data.slice(i, i + 3)].map((p) => p.toString(16).padStart(2, '0')).join('').toUpperCase();"
            " seen[key] = (seen[key] ?? 0) + 1; } return seen; }"
        )
        for color in ("8C8C8C", "56B4E9", "D55E00"):
            assert colors.get(color, 0) > 20, color


def test_a_picture_is_as_wide_as_the_panel_on_its_board(browser: Browser, tmp_path: Path) -> None:
    file, width = written(tmp_path, "line")
    out = tmp_path / "line.png"
    shoot(browser, file, out, width)
    data = out.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">I", data[16:20])[0] == width * 1.25


def test_no_picture_is_taken_of_a_page_that_was_not_drawn(browser: Browser, tmp_path: Path) -> None:
    file, width = written(tmp_path, "line")
    file.write_text(file.read_text().replace('id="drawing">{', 'id="drawing">'))
    with pytest.raises(PreviewError, match="the page was not drawn"):
        shoot(browser, file, tmp_path / "none.png", width)
    assert not (tmp_path / "none.png").exists()
