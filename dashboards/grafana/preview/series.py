"""A plot over time, as numbers: from answers and a panel's field configuration to lines, bands, ticks and marks.

The last step before the page, and the last in Python: what is made here is only painted by `templates/preview.js`.
Invariants: every colour, dash and width is the panel's; the script gets numbers and colours, never anybody's text; at
most `SERIES_MAX` lines are drawn, and how many were left out is said.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from dashboards.grafana.macros import View
from dashboards.grafana.preview.asking import Answer, Kind
from dashboards.grafana.preview.definition import Config, Panel, PreviewError, color
from dashboards.grafana.preview.values import ticks, unit_of

SERIES_MAX: Final = 40
# Okabe and Ito's in an order in which neighbours differ most, where a board leaves the choice to Grafana's palette.
PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#A08A00")
_HEADROOM: Final = 1.08
_FILL_BELOW: Final = 35
# Not a gap: the line goes on to the series' next value.
GOES_ON: Final = ""


class Line(msgspec.Struct):
    """One series.

    Attributes:
        color: of the line.
        width: in pixels.
        dash: lengths of ink and of nothing, in pixels; empty: solid.
        fill: how opaque the space between it and zero is, 0 to 1.
        values: one for each time; None breaks the line, an empty text (`GOES_ON`) does not.
    """

    color: str
    width: float
    dash: list[float]
    fill: float
    values: list[float | str | None]


class Band(msgspec.Struct):
    """Space that is filled between two lines, which are named by their places from 0; opacity 0 to 1."""

    upper: int
    lower: int
    color: str
    opacity: float


class Mark(msgspec.Struct):
    """A moment that is marked by an upright line: seconds since the epoch."""

    at: float
    color: str


class Drawing(msgspec.Struct):
    """What the script paints.

    Attributes:
        start: left end of the time axis, seconds since the epoch.
        end: right end.
        low: lower end of the axis of the values.
        high: upper end.
        log: that axis is logarithmic.
        bars: bars instead of lines, those that stand on others first.
        step: seconds that a bar stands for.
        height: of the plot, in pixels.
        x: times, seconds since the epoch.
        lines: the series.
        bands: between them.
        ticks: values that are written at the axis, and how.
        marks: moments.
    """

    start: float
    end: float
    low: float
    high: float
    log: bool
    bars: bool
    step: int
    height: int
    x: list[float]
    lines: list[Line]
    bands: list[Band]
    ticks: list[tuple[float, str]]
    marks: list[Mark]


@dataclass(frozen=True, slots=True)
class Series:
    """One named series: its points by time, in seconds since the epoch."""

    name: str
    points: dict[float, float]


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing with what stands beside it.

    Attributes:
        drawing: what the script paints; None where there is nothing.
        legend: name, colour and dashedness of each line.
        left_out: how many series are not drawn.
    """

    drawing: Drawing | None
    legend: Sequence[tuple[str, str, bool]]
    left_out: int = 0


def plot(panel: Panel, answers: Sequence[Answer], view: View, marks: Sequence[Mark], height: int) -> Plot:
    """Return a panel's plot.

    Args:
        panel: whose configuration counts.
        answers: of its queries.
        view: the time range that is drawn.
        marks: moments to mark.
        height: of the plot, in pixels.

    Raises:
        PreviewError: an answer has no moments or no numbers, or the panel has a rule that is not known here.
    """
    found = [one for answer in answers for one in series_of(answer) if one.points]
    if not found:
        return Plot(None, [])
    kept = found[:SERIES_MAX]
    configs = [panel.config(one.name) for one in kept]
    colors = _colors(configs)
    bars = panel.defaults.get("custom.drawStyle") == "bars"
    log = panel.defaults.get("custom.scaleDistribution", {}).get("type") == "log"
    x = sorted({at for one in kept for at in one.points})
    columns = [_column(one, x, config, log) for one, config in zip(kept, configs, strict=True)]
    if panel.defaults.get("custom.stacking", {}).get("mode") == "normal":
        columns = _stacked(columns)
    low, high = _range(columns, log, panel.defaults.get("min"))
    drawing = Drawing(
        view.start.timestamp(), view.end.timestamp(), low, high, log, bars, view.step_seconds, height, x,
        [
            Line(shade, *_stroke(config, bars), column)
            for shade, config, column in zip(colors, configs, columns, strict=True)
        ],
        _bands(kept, configs, colors), ticks(low, high, unit_of(panel.defaults), log), list(marks),
    )  # fmt: skip
    legend = [(one.name, shade, bool(_dash(config))) for one, shade, config in zip(kept, colors, configs, strict=True)]
    return Plot(drawing, legend, len(found) - len(kept))


def series_of(answer: Answer) -> list[Series]:
    """Return the series of an answer, named as Grafana names them.

    A column of numbers is a series; columns of texts beside it make one of each combination. Source: Grafana's
    `calculateFieldDisplayName`: one text stands as it is, several as `{name="text", ...}`.

    Raises:
        PreviewError: there are no moments or no numbers.
    """
    times, numbers, texts = (answer.places(kind) for kind in (Kind.TIME, Kind.NUMBER, Kind.TEXT))
    if not times or not numbers:
        raise PreviewError("a query of a plot over time has to give a column of moments and one of numbers")
    found: dict[tuple[tuple[str, ...], int], dict[float, float]] = {}
    for row in answer.rows:
        at, labels = row[times[0]], tuple(str(row[place]) for place in texts)
        for place in numbers:
            points = found.setdefault((labels, place), {})
            if at is not None and row[place] is not None:
                points[at] = row[place]
    names = [answer.names[place] for place in texts]
    return [
        Series(_name(answer.names[place], names, labels), dict(sorted(points.items())))
        for (labels, place), points in sorted(found.items(), key=lambda item: (item[0][1], item[0][0]))
    ]


def _name(column: str, names: Sequence[str], labels: Sequence[str]) -> str:
    if not labels:
        return column
    if len(labels) == 1:
        return f"{column} {labels[0]}".strip()
    pairs = sorted(zip(names, labels, strict=True))
    return f"{column} {{" + ", ".join(f'{name}="{label}"' for name, label in pairs) + "}"


def _colors(configs: Iterable[Config]) -> list[str]:
    palette = itertools.cycle(PALETTE)
    found = []
    for config in configs:
        fixed = config.get("color", {})
        found.append(color(fixed["fixedColor"]) if fixed.get("mode") == "fixed" else next(palette))
    return found


def _column(one: Series, x: Sequence[float], config: Config, log: bool) -> list[float | str | None]:
    """Return a value for each time; between two points that are near enough the line goes on."""
    spanned = config.get("custom.spanNulls", False)
    most = math.inf if spanned is True else float(spanned) / 1000
    drawn = {at: value for at, value in one.points.items() if math.isfinite(value) and (value > 0 or not log)}
    later = dict(itertools.pairwise(drawn))
    column: list[float | str | None] = []
    until = -math.inf
    for at in x:
        if at in drawn:
            column.append(drawn[at])
            following = later.get(at)
            until = following if following is not None and following - at <= most else -math.inf
        else:
            column.append(GOES_ON if at < until else None)
    return column


def _stacked(columns: Sequence[Sequence[float | str | None]]) -> list[list[float | str | None]]:
    """Return each column on top of those before it."""
    total = [0.0] * len(columns[0])
    found: list[list[float | str | None]] = []
    for column in columns:
        total = [base + (value if isinstance(value, float) else 0.0) for base, value in zip(total, column, strict=True)]
        found.append(list(total))
    return found


def _range(columns: Iterable[Sequence[float | str | None]], log: bool, least: float | None) -> tuple[float, float]:
    values = [value for column in columns for value in column if isinstance(value, float)]
    if log:
        least_power = math.floor(math.log10(min(values, default=1.0)))
        most_power = math.ceil(math.log10(max(values, default=10.0)))
        return 10.0**least_power, 10.0 ** max(most_power, least_power + 1)
    low = min(values, default=0.0)
    low = low if least is None else min(low, least)
    high = max(values, default=1.0)
    return low, low + (high - low) * _HEADROOM if high > low else low + 1.0


def _stroke(config: Config, bars: bool) -> tuple[float, list[float], float]:
    below = "custom.fillBelowTo" in config
    fill = 0.0 if below else config.get("custom.fillOpacity", 0) / 100
    return (0.0 if bars else float(config.get("custom.lineWidth", 1))), _dash(config), fill


def _dash(config: Config) -> list[float]:
    style: dict[str, Any] = config.get("custom.lineStyle", {})
    return [float(part) for part in style.get("dash", [])] if style.get("fill") == "dash" else []


def _bands(kept: Sequence[Series], configs: Sequence[Config], colors: Sequence[str]) -> list[Band]:
    places = {one.name: place for place, one in enumerate(kept)}
    return [
        Band(upper, places[config["custom.fillBelowTo"]], colors[upper], _FILL_BELOW / 100)
        for upper, config in enumerate(configs)
        if config.get("custom.fillBelowTo") in places
    ]
