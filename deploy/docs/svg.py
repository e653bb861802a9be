"""Line and bar charts as SVG text, readable on light and dark pages; no more than the figures of the READMEs need.

Pure: numbers go in, text comes out, coordinates rounded to a tenth of a pixel. A chart draws its own background, since
a page's theme and the reader's preference need not agree.
"""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Final, NamedTuple

WIDTH: Final = 760
HEIGHT: Final = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 64, 56
_LIGHT: Final = {
    "page": "#fcfcfb",
    "ink": "#0b0b0b",
    "soft": "#52514e",
    "grid": "#e1e0d9",
    "a": "#2a78d6",
    "b": "#c2410c",
    "c": "#52514e",
}
_DARK: Final = {
    "page": "#1a1a19",
    "ink": "#ffffff",
    "soft": "#c3c2b7",
    "grid": "#3a3a37",
    "a": "#6aa9f0",
    "b": "#f2955f",
    "c": "#c3c2b7",
}

Points = Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """A linear axis.

    Attributes:
        label: what it shows, with its unit.
        high: where it ends; it begins at `low`.
        ticks: the values that are written beside it.
    """

    label: str
    high: float
    ticks: Sequence[float]
    low: float = 0.0

    def part(self, value: float) -> float:
        """Return where a value lies, 0 at the beginning and 1 at the end."""
        return (value - self.low) / (self.high - self.low)


class Line(NamedTuple):
    """A line, named beside it.

    Attributes:
        label: its name.
        points: (x, y) pairs, ascending in x; what leaves the frame is cut off.
        tone: `a`, `b` or `c`.
        name_at: where the name begins, (x, y).
        dashed: so that colours are not the only difference.
        band: (x, low, high) triples to shade behind it.
    """

    label: str
    points: Points
    tone: str
    name_at: tuple[float, float]
    dashed: bool = False
    band: Sequence[tuple[float, float, float]] = ()


class Rule(NamedTuple):
    """A straight line through the whole frame, with a label.

    Attributes:
        value: where it stands: a value of y, or of x if `upright`.
        label: what it means.
        label_at: where the label is along it: a value of the other axis.
        upright: vertical.
        before: the label of an upright one ends at it instead of beginning there.
    """

    value: float
    label: str
    label_at: float
    upright: bool = False
    before: bool = False


class Bar(NamedTuple):
    """A bar with the value written above it, and the span from `low` to `high` as a whisker."""

    value: float
    low: float
    high: float


def line_chart(title: str, note: str, x: Axis, y: Axis, lines: Iterable[Line], rules: Iterable[Rule] = ()) -> str:
    """Return a line chart.

    Args:
        title: what is to be seen, one line.
        note: of what run it is, one line.
        x: the horizontal axis.
        y: the vertical axis.
        lines: back to front.
        rules: behind the lines.
    """
    parts = [_grid(x, y), *(_rule(rule, x, y) for rule in rules)]
    named = []
    for line in lines:
        corners = _corners(line.points, x, y)
        if line.band:
            upper = [(px, high) for px, _, high in line.band]
            lower = [(px, low) for px, low, _ in reversed(line.band)]
            around = _corners(upper + lower, x, y)
            parts.append(f'<polygon class="band fill-{line.tone}" clip-path="url(#frame)" points="{around}"/>')
        dashed = " dashed" if line.dashed else ""
        parts.append(f'<polyline class="line line-{line.tone}{dashed}" clip-path="url(#frame)" points="{corners}"/>')
        named.append(_text(*line.name_at, line.label, x, y, f"name fill-{line.tone}"))
    return _page(title, note, [*parts, *named])


def bar_chart(
    title: str, note: str, groups: Sequence[str], y: Axis, series: Sequence[tuple[str, str, Sequence[Bar]]]
) -> str:
    """Return a chart of bars in groups.

    Args:
        title: what is to be seen, one line.
        note: of what runs it is, one line.
        groups: what stands below each group.
        y: the vertical axis.
        series: name, tone and one bar a group, side by side within each.
    """
    x = Axis("", float(len(groups)), ())
    parts = [_grid(x, y)]
    wide = 0.7 / len(series)
    for number, (label, tone, bars) in enumerate(series):
        for place, bar in enumerate(bars):
            left = place + 0.15 + number * wide
            parts.append(_bar(left, left + wide - 0.03, bar, tone, x, y))
        key = WIDTH - _RIGHT - 200 * (len(series) - number)
        parts.append(f'<rect class="fill-{tone}" x="{key}" y="{_TOP + 8}" width="12" height="12"/>')
        parts.append(f'<text class="soft" x="{key + 18}" y="{_TOP + 18}">{escape(label)}</text>')
    base = HEIGHT - _BOTTOM + 20
    for place, name in enumerate(groups):
        parts.append(f'<text class="soft middle" x="{_x(x, place + 0.5)}" y="{base}">{escape(name)}</text>')
    return _page(title, note, parts)


def _bar(left: float, right: float, bar: Bar, tone: str, x: Axis, y: Axis) -> str:
    middle, top = _x(x, (left + right) / 2), _y(y, bar.value)
    wide, high = float(_x(x, right)) - float(_x(x, left)), HEIGHT - _BOTTOM - float(top)
    above = float(_y(y, max(bar.value, bar.high))) - 6
    return (
        f'<rect class="fill-{tone}" x="{_x(x, left)}" y="{top}" width="{wide:.1f}" height="{high:.1f}"/>'
        f'<line class="whisker" x1="{middle}" x2="{middle}" y1="{_y(y, bar.low)}" y2="{_y(y, bar.high)}"/>'
        f'<text class="ink middle" x="{middle}" y="{above:.1f}">{bar.value:.1f}</text>'
    )


def _corners(points: Points, x: Axis, y: Axis) -> str:
    # Points that fall on the one before tell nothing.
    return " ".join(corner for corner, _ in groupby(f"{_x(x, px)},{_y(y, py)}" for px, py in points))


def _x(axis: Axis, value: float) -> str:
    return f"{_LEFT + axis.part(value) * (WIDTH - _LEFT - _RIGHT):.1f}"


def _y(axis: Axis, value: float) -> str:
    return f"{HEIGHT - _BOTTOM - axis.part(value) * (HEIGHT - _TOP - _BOTTOM):.1f}"


def _text(px: float, py: float, text: str, x: Axis, y: Axis, style: str) -> str:
    return f'<text class="{style}" x="{_x(x, px)}" y="{_y(y, py)}">{escape(text)}</text>'


def _grid(x: Axis, y: Axis) -> str:
    right, base = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for tick in y.ticks:
        at = _y(y, tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="soft end" x="{_LEFT - 8}" y="{float(at) + 4:.1f}">{tick:g}</text>')
    parts += [f'<text class="soft middle" x="{_x(x, tick)}" y="{base + 18}">{tick:g}</text>' for tick in x.ticks]
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{base}" y2="{base}"/>')
    parts.append(f'<text class="soft middle" x="{(_LEFT + right) / 2}" y="{HEIGHT - 14}">{escape(x.label)}</text>')
    middle = (_TOP + base) / 2
    parts.append(
        f'<text class="soft middle" transform="rotate(-90 18 {middle})" x="18" y="{middle}">{escape(y.label)}</text>'
    )
    return "\n".join(parts)


def _rule(rule: Rule, x: Axis, y: Axis) -> str:
    if rule.upright:
        at = _x(x, rule.value)
        line = f'<line class="rule" x1="{at}" x2="{at}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
        style, aside = ("ink end", -6) if rule.before else ("ink", 6)
        place = f'x="{float(at) + aside:.1f}" y="{_y(y, rule.label_at)}"'
        return f'{line}\n<text class="{style}" {place}>{escape(rule.label)}</text>'
    at = _y(y, rule.value)
    line = f'<line class="rule" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>'
    return f'{line}\n<text class="ink" x="{_x(x, rule.label_at)}" y="{float(at) - 5:.1f}">{escape(rule.label)}</text>'


def _page(title: str, note: str, parts: Iterable[str]) -> str:
    frame = f'x="{_LEFT}" y="{_TOP}" width="{WIDTH - _LEFT - _RIGHT}" height="{HEIGHT - _TOP - _BOTTOM}"'
    dark = "\n".join(f"  {line}" for line in _colours(_DARK).splitlines())
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">
<title>{escape(title)}</title>
<desc>{escape(note)}</desc>
<style>
text {{ font: 13px system-ui, "DejaVu Sans", sans-serif; }}
.title {{ font-size: 15px; font-weight: 600; }}
.middle {{ text-anchor: middle; }}
.end {{ text-anchor: end; }}
.line {{ fill: none; stroke-width: 2; }}
.dashed {{ stroke-dasharray: 7 4; }}
.band {{ opacity: 0.18; }}
.rule {{ stroke-width: 1; stroke-dasharray: 2 3; }}
.name {{ font-weight: 600; }}
{_colours(_LIGHT)}
@media (prefers-color-scheme: dark) {{
{dark}
}}
</style>
<clipPath id="frame"><rect {frame}/></clipPath>
<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>
<text class="title ink" x="16" y="24">{escape(title)}</text>
<text class="soft" x="16" y="43">{escape(note)}</text>
{chr(10).join(parts)}
</svg>
"""


def _colours(colours: dict[str, str]) -> str:
    tones = "\n".join(
        f".fill-{tone} {{ fill: {colours[tone]}; }}\n.line-{tone} {{ stroke: {colours[tone]}; }}" for tone in "abc"
    )
    return (
        f".page {{ fill: {colours['page']}; }}\n.ink {{ fill: {colours['ink']}; }}\n"
        f".soft {{ fill: {colours['soft']}; }}\n.grid {{ stroke: {colours['grid']}; }}\n"
        f".axis, .rule {{ stroke: {colours['soft']}; }}\n.whisker {{ stroke: {colours['ink']}; }}\n{tones}"
    )
