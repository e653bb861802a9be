"""A panel to HTML: one file that asks nobody for anything, and says of itself what it is not.

The last step of a preview. Invariants: every text is made plain and escaped, whatever it says; no script runs but
uPlot and the one beside this file, by their hashes; the caption names the board, the panel and the time, and that no
Grafana drew it.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec
from jinja2 import Environment
from markupsafe import Markup

from dashboards.grafana.macros import View
from dashboards.grafana.preview.asking import Answer, Ask, Kind, answered
from dashboards.grafana.preview.cells import Cell, Stat, Table, stats, table
from dashboards.grafana.preview.definition import Annotation, Board, Panel
from dashboards.grafana.preview.series import Mark, Plot, plot
from dashboards.grafana.preview.states import ROW_PIXELS, TimeLine, time_line
from dashboards.grafana.preview.values import moment
from dashboards.one_file import source_hash, templates_in

_TEMPLATES: Final = Path(__file__).parent / "templates"
# A board is this wide, and a row of it this high, on a screen of 1,600 pixels; the title of a panel takes its part.
BOARD_PIXELS: Final = 1536
_BOARD_ROW_PIXELS: Final = 38
_HEAD_PIXELS: Final = 78
# What a panel has beside its inner width: paddings and borders.
_SIDES_PIXELS: Final = 54
MARKS_LISTED_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment that an annotation marks: when, in seconds since the epoch, what it is, and in which colour."""

    at: float
    text: str
    name: str
    color: str


def width_of(panel: Panel) -> int:
    """Return how many pixels wide a panel is."""
    return BOARD_PIXELS * panel.columns // 24


def preview(board: Board, panel: Panel, view: View, ask: Ask) -> str:
    """Return a panel as a page.

    Args:
        board: whose annotations are marked.
        panel: one of its panels.
        view: the time range, and the values of the board's variables.
        ask: the store.

    Raises:
        PreviewError: the definition or an answer holds what is not known here.
    """
    answers = [answered(sql, f"{board.uid}/{panel.title}", view, ask) for sql in panel.sql]
    if panel.kind == "stat":
        return _page(board, panel, view, stats=stats(panel, answers[0]))
    if panel.kind == "table":
        return _page(board, panel, view, table=table(panel, answers[0]))
    if panel.kind == "state-timeline":
        line = time_line(panel, answers[0], view, width_of(panel) - _SIDES_PIXELS)
        return _page(board, panel, view, line=line)
    moments = [one for each in board.annotations for one in _moments(each, view, ask)]
    marks = [Mark(one.at, one.color) for one in moments]
    height = panel.rows * _BOARD_ROW_PIXELS - _HEAD_PIXELS
    return _page(board, panel, view, plot=plot(panel, answers, view, marks, height), moments=moments)


def _moments(annotation: Annotation, view: View, ask: Ask) -> list[Moment]:
    answer: Answer = answered(annotation.sql, f"annotation {annotation.name}", view, ask)
    at, text = answer.places(Kind.TIME)[0], answer.names.index("text")
    return [Moment(row[at], row[text], annotation.name, annotation.color) for row in answer.rows if row[at] is not None]


def _page(
    board: Board,
    panel: Panel,
    view: View,
    *,
    plot: Plot | None = None,
    stats: Sequence[Stat] = (),
    table: Table | None = None,
    line: TimeLine | None = None,
    moments: Sequence[Moment] = (),
) -> str:
    drawing = plot.drawing if plot is not None else None
    moments = sorted(moments, key=lambda one: one.at) if drawing is not None else []
    shades = _shades(plot, stats, table, moments)
    columns = table.columns if table is not None else ()
    style = "".join((_file("uPlot.min.css"), _own("preview.css"), _rules(panel, shades, columns)))
    scripts = [_file("uPlot.iife.min.js"), _own("preview.js")] if drawing else []
    return _environment().get_template("preview.html").render(
        board=board, panel=panel, plot=plot, stats=stats, table=table, line=line, row_pixels=ROW_PIXELS,
        moments=moments[:MARKS_LISTED_MAX], moments_more=max(0, len(moments) - MARKS_LISTED_MAX),
        since=moment(view.start.timestamp()), until=moment(view.end.timestamp()),
        chosen=[(name, values) for name, values in view.variables.items() if len(values) == 1],
        shade={one: f"shade{place}" for place, one in enumerate(shades)},
        # In a script element only `<` could end it.
        drawing=Markup(msgspec.json.encode(drawing).decode().replace("<", "\\u003c")),  # noqa: S704  # numbers, colours
        style=Markup(style), scripts=[Markup(one) for one in scripts],  # noqa: S704  # our own files
        style_hash=source_hash(style), script_hashes=[source_hash(one) for one in scripts],
    )  # fmt: skip


def _shades(
    plot: Plot | None, stats: Sequence[Stat], table: Table | None, moments: Sequence[Moment]
) -> list[tuple[str | None, str | None]]:
    """Return every pair of text colour and background that the page has; the policy allows no style attributes."""
    cells: list[Cell] = [one.cell for one in stats]
    cells += [cell for row in table.rows for cell in row] if table is not None else []
    found = [(cell.color, cell.background) for cell in cells]
    found += [(shade, None) for _, shade, _ in plot.legend] if plot is not None else []
    found += [(one.color, None) for one in moments]
    return list(dict.fromkeys(found))


def _rules(
    panel: Panel, shades: Sequence[tuple[str | None, str | None]], columns: Sequence[tuple[str, int | None]]
) -> str:
    rules = [f"figure {{ width: {width_of(panel)}px; }}"]
    for place, (ink, back) in enumerate(shades):
        parts = (f"color: {ink};" if ink else "", f"background: {back};" if back else "")
        rules.append(f".shade{place} {{ {' '.join(filter(None, parts))} }}")
    rules += [f".column{place} {{ width: {pixels:d}px; }}" for place, (_, pixels) in enumerate(columns) if pixels]
    return "\n".join(rules) + "\n"


def _file(name: str) -> str:
    """Return a file of uPlot, as the console serves it."""
    return (resources.files("dashboards.console") / "static" / "vendor" / name).read_text(encoding="utf-8")


def _own(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> Environment:
    return templates_in(_TEMPLATES)
