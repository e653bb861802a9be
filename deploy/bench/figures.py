"""A bench's figures: what was measured, its bound, and whether it holds.

Ratios within one run are what counts on a shared machine; absolute figures are printed with their bound all the same.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

FOLDER = Path("build/bench")


class Figure(msgspec.Struct, kw_only=True):
    """One measured figure.

    Attributes:
        figure: what was measured.
        value: the measurement.
        unit: its unit.
        bound: what it must reach, as text (`>= 150000`); empty where it is only printed.
        ok: whether the bound holds; true where there is none.
    """

    figure: str
    value: float
    unit: str
    bound: str = ""
    ok: bool = True


def at_least(figure: str, value: float, unit: str, bound: float) -> Figure:
    """Return a figure that must reach `bound`."""
    return Figure(figure=figure, value=value, unit=unit, bound=f">= {bound:g}", ok=value >= bound)


def at_most(figure: str, value: float, unit: str, bound: float) -> Figure:
    """Return a figure that must not pass `bound`."""
    return Figure(figure=figure, value=value, unit=unit, bound=f"<= {bound:g}", ok=value <= bound)


def printed(figure: str, value: float, unit: str) -> Figure:
    """Return a figure without a bound."""
    return Figure(figure=figure, value=value, unit=unit)


def show(name: str, figures: Sequence[Figure]) -> bool:
    """Print the figures, write `build/bench/NAME.json`, and return whether all bounds hold."""
    table = Table(title=f"bench {name}")
    for heading in ("figure", "value", "unit", "bound", ""):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for one in figures:
        digits = 0 if abs(one.value) >= 1000 else 3 if abs(one.value) < 10 else 1
        verdict = "" if not one.bound else "ok" if one.ok else "FALLS SHORT"
        table.add_row(one.figure, f"{one.value:,.{digits}f}", one.unit, one.bound, verdict)
    Console(width=140).print(table)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(list(figures)), indent=2) + b"\n")
    return all(one.ok for one in figures)
