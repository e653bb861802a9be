"""States over time: from an answer to coloured stretches on a time line.

The last step before the page for a state timeline, which the page writes as SVG. Invariants: a state has the colour
that the panel's mappings give it, and stands until the next one or the end of the time range; at most `STRETCHES_MAX`
are drawn, and how many were left out is said.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from dashboards.grafana.macros import View
from dashboards.grafana.preview.asking import Answer, Kind
from dashboards.grafana.preview.cells import ink_on
from dashboards.grafana.preview.definition import Config, Panel, PreviewError
from dashboards.grafana.preview.values import color_of, shown

STRETCHES_MAX: Final = 500
ROW_PIXELS: Final = 36
_NAME_PIXELS: Final = 80
_CHARACTER_PIXELS: Final = 8
_UNMAPPED: Final = "#8C8C8C"
_STEPS: Final = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)
_TICKS_MOST: Final = 10


@dataclass(frozen=True, slots=True)
class Stretch:
    """How long a state stood: its place and length in pixels, its word, whether that fits in, its colours."""

    left: float
    length: float
    text: str
    fits: bool
    color: str
    ink: str


@dataclass(frozen=True, slots=True)
class TimeLine:
    """Rows of stretches.

    Attributes:
        rows: name of each and its stretches.
        ticks: places in pixels, and the times that are written there.
        width: of all, in pixels.
        left_out: how many stretches are not drawn.
    """

    rows: Sequence[tuple[str, Sequence[Stretch]]]
    ticks: Sequence[tuple[float, str]]
    width: int
    left_out: int

    @property
    def height(self) -> int:
        """Height of all, in pixels."""
        return ROW_PIXELS * len(self.rows) + 24


def time_line(panel: Panel, answer: Answer, view: View, width: int) -> TimeLine | None:
    """Return the panel's time line; None where there is nothing.

    Args:
        panel: whose mappings count.
        answer: of its query: a column of moments, in their order, and others of states.
        view: the time range that is drawn.
        width: of all, in pixels.

    Raises:
        PreviewError: there are no moments or no states.
    """
    times = answer.places(Kind.TIME)
    states = [place for place in range(len(answer.names)) if place not in times]
    if not times or not states:
        raise PreviewError("a query of a state timeline has to give a column of moments and one of states")
    start, end = view.start.timestamp(), view.end.timestamp()
    pixels = (width - _NAME_PIXELS) / (end - start)
    rows, left_out = [], 0
    for place in states:
        config = panel.config(answer.names[place])
        found = [(row[times[0]], row[place]) for row in answer.rows if row[times[0]] is not None]
        stretches = [
            _stretch(_NAME_PIXELS + (since - start) * pixels, (until - since) * pixels, value, config)
            for since, until, value in _merged(found, end)
        ]
        rows.append((answer.names[place], stretches[:STRETCHES_MAX]))
        left_out += max(0, len(stretches) - STRETCHES_MAX)
    if not any(stretches for _, stretches in rows):
        return None
    step = next((one for one in _STEPS if (end - start) / one <= _TICKS_MOST), _STEPS[-1])
    first = -(-int(start) // step) * step
    ticks = [(_NAME_PIXELS + (at - start) * pixels, _clock(at, step)) for at in range(first, int(end) + 1, step)]
    return TimeLine(rows, ticks, width, left_out)


def _merged(found: Sequence[tuple[float, Any]], end: float) -> Iterator[tuple[float, float, Any]]:
    """Yield since when, until when and which state, equal neighbours as one; a null is none."""
    changes = [(at, value) for number, (at, value) in enumerate(found) if number == 0 or value != found[number - 1][1]]
    for number, (since, value) in enumerate(changes):
        until = changes[number + 1][0] if number + 1 < len(changes) else end
        if value is not None and until > since:
            yield since, until, value


def _stretch(left: float, length: float, value: Any, config: Config) -> Stretch:
    text, shade = shown(value, config), color_of(value, config) or _UNMAPPED
    return Stretch(
        round(left, 1), round(length, 1), text, length > _CHARACTER_PIXELS * (len(text) + 2), shade, ink_on(shade)
    )


def _clock(at: int, step: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S" if step < 60 else "%m-%d" if step == 86_400 else "%H:%M")
