"""Line and bar charts as SVG text: the figures of the READMEs, and the plots of the incident report.

Pure: numbers go in, text comes out, coordinates rounded to a tenth of a pixel. A figure by itself draws its own
background, since a page's theme and the reader's preference need not agree; a part of a page goes by `styles`, which
that page holds once. Lines differ by their dashes too, not by colour alone.
"""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Final, NamedTuple

WIDTH: Final = 760
HEIGHT: Final = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 64, 56
_KEY_LINE: Final = 30
# Width of a letter in a wide font.
_LETTER: Final = 7.2
_PART: Final = ".plot "
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
        names: what is written instead of each of them, such as a time of day.
    """

    label: str
    high: float
    ticks: Sequence[float]
    low: float = 0.0
    names: Sequence[str] = ()

    @property
    def marks(self) -> list[tuple[float, str]]:
        """The ticks with what is written beside each."""
        return list(zip(self.ticks, self.names or [f"{tick:g}" for tick in self.ticks], strict=True))

    def part(self, value: float) -> float:
        """Return where a value lies, 0 at the beginning and 1 at the end."""
        return (value - self.low) / (self.high - self.low)


class Line(NamedTuple):
    """A line, named beside it or in the key above the frame.

    Attributes:
        label: its name.
        points: (x, y) pairs, ascending in x; what leaves the frame is cut off.
        tone: `a`, `b` or `c`.
        name_at: where the name begins, (x, y); None: in the key.
        dashed: so that colours are not the only difference.
        dotted: the same, for a third line.
        band: (x, low, high) triples to shade behind it.
    """

    label: str
    points: Points
    tone: str
    name_at: tuple[float, float] | None = None
    dashed: bool = False
    dotted: bool = False
    band: Sequence[tuple[float, float, float]] = ()

    @property
    def style(self) -> str:
        """The classes that it is drawn by."""
        return f"line line-{self.tone}{' dashed' if self.dashed else ''}{' dotted' if self.dotted else ''}"


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


def line_chart(
    title: str, note: str, x: Axis, y: Axis, lines: Iterable[Line], rules: Iterable[Rule] = (), part: str = ""
) -> str:
    """Return a line chart.

    Args:
        title: what is to be seen, one line.
        note: of what run it is, one line.
        x: the horizontal axis.
        y: the vertical axis.
        lines: back to front.
        rules: behind the lines.
        part: for a chart within an HTML page that holds `styles`, a name that is its own on that page.
    """
    parts = [_grid(x, y), *(_rule(rule, x, y) for rule in rules)]
    frame, named, keyed = _frame_id(part), [], _LEFT
    for line in lines:
        corners = _corners(line.points, x, y)
        if line.band:
            upper = [(px, high) for px, _, high in line.band]
            lower = [(px, low) for px, low, _ in reversed(line.band)]
            around = _corners(upper + lower, x, y)
            parts.append(f'<polygon class="band fill-{line.tone}" clip-path="url(#{frame})" points="{around}"/>')
        parts.append(f'<polyline class="{line.style}" clip-path="url(#{frame})" points="{corners}"/>')
        if line.name_at is not None:
            named.append(_text(*line.name_at, line.label, x, y, f"name fill-{line.tone}"))
        else:
            named.append(_key(line, keyed))
            keyed += _KEY_LINE + 22 + int(len(line.label) * _LETTER)
    return _page(title, note, [*parts, *named], part)


def styles() -> str:
    """Return the style sheet of all charts that are parts of one page; dark on screens only, never on paper."""
    dark = "\n".join(f"  {line}" for line in _colours(_DARK, _PART).splitlines())
    return (
        f"{_shapes(_PART)}\n{_colours(_LIGHT, _PART)}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
    )


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


def _key(line: Line, left: int) -> str:
    """Draw a line's name above the frame, behind a piece of the line."""
    at, right = _TOP - 14, left + _KEY_LINE
    return (
        f'<polyline class="{line.style}" points="{left},{at} {right},{at}"/>'
        f'<text class="soft" x="{right + 6}" y="{at + 4}">{escape(line.label)}</text>'
    )


def _grid(x: Axis, y: Axis) -> str:
    right, base = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for tick, name in y.marks:
        at = _y(y, tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="soft end" x="{_LEFT - 8}" y="{float(at) + 4:.1f}">{escape(name)}</text>')
    parts += [
        f'<text class="soft middle" x="{_x(x, tick)}" y="{base + 18}">{escape(name)}</text>' for tick, name in x.marks
    ]
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


def _frame_id(part: str) -> str:
    return f"frame-{part}" if part else "frame"


def _page(title: str, note: str, parts: Iterable[str], part: str = "") -> str:
    frame = f'x="{_LEFT}" y="{_TOP}" width="{WIDTH - _LEFT - _RIGHT}" height="{HEIGHT - _TOP - _BOTTOM}"'
    dark = "\n".join(f"  {line}" for line in _colours(_DARK).splitlines())
    named = (
        f'class="plot" aria-labelledby="{part}-title" aria-describedby="{part}-note"' if part else f'width="{WIDTH}"'
    )
    title_id, note_id = (f' id="{part}-title"', f' id="{part}-note"') if part else ("", "")
    own_style = f"""
<style>
{_shapes()}
{_colours(_LIGHT)}
@media (prefers-color-scheme: dark) {{
{dark}
}}
</style>"""
    said = (
        ""
        if part
        else f"""
<text class="soft" x="16" y="43">{escape(note)}</text>"""
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {named} role="img">
<title{title_id}>{escape(title)}</title>
<desc{note_id}>{escape(note)}</desc>{"" if part else own_style}
<clipPath id="{_frame_id(part)}"><rect {frame}/></clipPath>
<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>
<text class="title ink" x="16" y="24">{escape(title)}</text>{said}
{chr(10).join(parts)}
</svg>
"""


def _shapes(scope: str = "") -> str:
    dotted = f"\n{scope}.dotted {{ stroke-dasharray: 1.5 4; stroke-linecap: round; }}" if scope else ""
    return f"""{scope}text {{ font: 13px system-ui, "DejaVu Sans", sans-serif; }}
{scope}.title {{ font-size: 15px; font-weight: 600; }}
{scope}.middle {{ text-anchor: middle; }}
{scope}.end {{ text-anchor: end; }}
{scope}.line {{ fill: none; stroke-width: 2; }}
{scope}.dashed {{ stroke-dasharray: 7 4; }}{dotted}
{scope}.band {{ opacity: 0.18; }}
{scope}.rule {{ stroke-width: 1; stroke-dasharray: 2 3; }}
{scope}.name {{ font-weight: 600; }}"""


def _colours(colours: dict[str, str], scope: str = "") -> str:
    tones = "\n".join(
        f"{scope}.fill-{tone} {{ fill: {colours[tone]}; }}\n{scope}.line-{tone} {{ stroke: {colours[tone]}; }}"
        for tone in "abc"
    )
    return (
        f"{scope}.page {{ fill: {colours['page']}; }}\n{scope}.ink {{ fill: {colours['ink']}; }}\n"
        f"{scope}.soft {{ fill: {colours['soft']}; }}\n{scope}.grid {{ stroke: {colours['grid']}; }}\n"
        f"{scope}.axis, {scope}.rule {{ stroke: {colours['soft']}; }}\n"
        f"{scope}.whisker {{ stroke: {colours['ink']}; }}\n{tones}"
    )
