"""Numbers and rows: what stands in a stat panel and in a table, each value with its text and its colours.

The last step before the page for panels that are no plots. Invariant: a value's text, unit and colours are the
panel's; a table shows at most `ROWS_MAX` rows, and how many more there are is said.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dashboards.grafana.preview.asking import Answer, Kind
from dashboards.grafana.preview.definition import Config, Panel, PreviewError
from dashboards.grafana.preview.values import color_of, moment, shown

ROWS_MAX: Final = 50
# Grafana's `continuous-blues`, from little to much.
_BLUES: Final = ("#F7FBFF", "#0072B2")
_INK: Final = ("#111217", "#FFFFFF")


@dataclass(frozen=True, slots=True)
class Cell:
    """One value.

    Attributes:
        text: as it is shown.
        color: of the text; None: that of all text.
        background: None: none.
        number: whether it is aligned as one.
    """

    text: str
    color: str | None = None
    background: str | None = None
    number: bool = False


@dataclass(frozen=True, slots=True)
class Stat:
    """One big value; `name` says which, where there are several."""

    name: str
    cell: Cell


@dataclass(frozen=True, slots=True)
class Table:
    """Rows.

    Attributes:
        columns: name, and width in pixels; None: what is left.
        rows: cells by column.
        left_out: how many rows are not shown.
    """

    columns: Sequence[tuple[str, int | None]]
    rows: Sequence[Sequence[Cell]]
    left_out: int


def stats(panel: Panel, answer: Answer) -> list[Stat]:
    """Return the last value that is not null of each column that the panel reduces.

    Raises:
        PreviewError: the panel reduces values in a way that is not known here.
    """
    reduced = panel.options["reduceOptions"]
    if reduced["calcs"] != ["lastNotNull"] or reduced["values"]:
        raise PreviewError(f"panel {panel.label!r} reduces by {reduced['calcs']}; previews know lastNotNull")
    places = _chosen(answer, reduced["fields"])
    solid = panel.options["colorMode"] == "background_solid"
    found = []
    for place in places:
        values = [row[place] for row in answer.rows if row[place] is not None]
        if values:
            config = panel.config(answer.names[place])
            text, shade = shown(values[-1], config), color_of(values[-1], config)
            cell = Cell(text, ink_on(shade), shade) if solid and shade else Cell(text, shade)
            found.append(Stat(answer.names[place] if len(places) > 1 else "", cell))
    return found


def table(panel: Panel, answer: Answer) -> Table:
    """Return the rows of a panel."""
    configs = [panel.config(name) for name in answer.names]
    values = ([row[place] for row in answer.rows] for place in range(len(configs)))
    rows = list(zip(*map(_column, values, answer.kinds, configs), strict=True))
    widths = [config.get("custom.width") for config in configs]
    return Table(list(zip(answer.names, widths, strict=True)), rows[:ROWS_MAX], max(0, len(rows) - ROWS_MAX))


def _chosen(answer: Answer, fields: str) -> list[int]:
    """Return the columns that a stat shows: those that match a pattern in slashes, or else all numbers."""
    if not fields:
        return answer.places(Kind.NUMBER)
    return [place for place, name in enumerate(answer.names) if re.search(fields.strip("/"), name)]


def _column(values: Sequence[Any], kind: Kind, config: Config) -> list[Cell]:
    options = config.get("custom.cellOptions", {})
    numbers = [value for value in values if isinstance(value, float)]
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    cells = []
    for value in values:
        if kind is Kind.TIME and value is not None:
            cells.append(Cell(moment(value)))
            continue
        text, number = shown(value, config), kind is Kind.NUMBER
        shade = color_of(value, config)
        if options.get("type") == "color-background" and isinstance(value, float):
            _of_blues(config)
            back = _between(*_BLUES, (value - low) / (high - low) if high > low else 0.0)
            cells.append(Cell(text, ink_on(back), back, number))
        else:
            cells.append(Cell(text, shade if options.get("type") == "color-text" else None, None, number))
    return cells


def _of_blues(config: Config) -> None:
    mode = config.get("color", {}).get("mode")
    if mode != "continuous-blues":
        raise PreviewError(f"cells filled by {mode!r} are not known here; known: continuous-blues")


def _between(less: str, more: str, part: float) -> str:
    pairs = zip(_parts(less), _parts(more), strict=True)
    return "#" + "".join(f"{round(low + (high - low) * part):02X}" for low, high in pairs)


def ink_on(shade: str) -> str:
    """Return black or white, whichever contrasts more with a colour (WCAG 2.2, relative luminance)."""
    weights = (0.2126, 0.7152, 0.0722)
    light = sum(weight * (part / 255) ** 2.2 for weight, part in zip(weights, _parts(shade), strict=True))
    return _INK[0] if light > 0.18 else _INK[1]


def _parts(shade: str) -> tuple[int, int, int]:
    return int(shade[1:3], 16), int(shade[3:5], 16), int(shade[5:7], 16)
