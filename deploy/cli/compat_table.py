"""What `cordon compat` found, for a script (JSON) and for a person (tables).

Names come from endpoints: they are shown without control characters and never read as markup.
"""

from typing import Final, TextIO

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detectors.interactions import Finding, Matrix, Pair

NAME_CHARS_MAX: Final = 48
# Wide enough for the table where the output is a file or a pipe.
WIDTH_PIPED: Final = 160
_WORDS: Final = {Finding.INTERACTION: "INTERACTION", Finding.WORSE: "worse together", Finding.NONE: ""}
_STYLES: Final = {Finding.INTERACTION: "bold red", Finding.WORSE: "yellow", Finding.NONE: ""}


class Untold(msgspec.Struct, frozen=True):
    """What the matrix leaves out of a product: devices that crashed with it on disk.

    Attributes:
        crashed: in all.
        untold: whose installs never told of the product, so that their time at risk is not known.
        moved: that had moved to another OS build than they last told; counted under the one they told.
    """

    crashed: int
    untold: int
    moved: int


class ProductMatrix(msgspec.Struct, frozen=True, kw_only=True):
    """One product's matrix, the span it covers (UTC), and what it cannot cover, in `notes`."""

    product: str
    since: str
    until: str
    untold: Untold
    matrix: Matrix
    notes: list[str]


class Compatibility(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    products: list[ProductMatrix]
    products_left_out: int


def plain(text: str) -> str:
    """Return a name as it may be shown: printable, and cut at 48 characters."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= NAME_CHARS_MAX else f"{shown[: NAME_CHARS_MAX - 1]}…"


def plain_note(text: str) -> str:
    """Return a note, which may hold names, as it may be shown: printable, and cut at 240 characters."""
    return "".join(character if character.isprintable() else "?" for character in text)[:240]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(pair: Pair) -> str:
    if pair.expected is None:
        return "-"
    high = "∞" if pair.ratio_high is None else _number(pair.ratio_high)
    estimate = "∞" if pair.ratio is None else _number(pair.ratio)
    return f"{estimate} ({_number(pair.ratio_low)} to {high}){' *' if pair.small else ''}"


def _per_day(rate: float | None) -> str:
    # Per thousand device-days: healthy rates are a few of these.
    return "-" if rate is None else _number(rate * 1000)


def _cells(pair: Pair) -> list[str]:
    evidence = ["-"] * 2 if pair.expected is None else [f"{pair.log10_worse:.1f}", f"{pair.log10_beyond:.1f}"]
    own = pair.crashes / pair.device_days if pair.device_days else None
    return [
        _WORDS[pair.finding], plain(pair.version), plain(f"{pair.factor} {pair.level}"), f"{pair.devices:,}",
        f"{pair.crashes:,}", "-" if pair.expected is None else _number(pair.expected), _ratio(pair), _per_day(own),
        _per_day(pair.version_alone), _per_day(pair.level_alone), *evidence,
    ]  # fmt: skip


def _table(found: ProductMatrix, limit: int) -> Table:
    title = Text(f"{plain(found.product)}, {found.since} to {found.until} UTC")
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in ("finding", "version", "with"):
        table.add_column(name, no_wrap=True)
    for name in ("devices", "crashed", "expected", "times (95 %)", "per 1000 days", "version alone", "other alone"):
        table.add_column(name, justify="right", no_wrap=name.startswith("times"))
    for name in ("log10 worse", "log10 beyond"):
        table.add_column(name, justify="right")
    for pair in found.matrix.pairs[:limit]:
        table.add_row(*map(Text, _cells(pair)), style=_STYLES[pair.finding])
    return table


def _closing(found: ProductMatrix, limit: int) -> list[str]:
    matrix = found.matrix
    findings = [sum(pair.finding is kind for pair in matrix.pairs) for kind in (Finding.INTERACTION, Finding.WORSE)]
    lines = [
        f"{matrix.tested:,} of {len(matrix.pairs):,} pairs could be tested: {findings[0]:,} interactions,"
        f" {findings[1]:,} worse together (each more than {matrix.tolerated_ratio:g} times; on average at most"
        f" {matrix.false_share:.0%} of each kind is false)."
    ]
    lines += [
        f"{plain(pair.version)} with {plain(pair.factor)} {plain(pair.level)}: {plain_note(pair.note)}."
        for pair in matrix.pairs[:limit]
        if pair.finding is not Finding.NONE and pair.note
    ]
    untested = next((pair for pair in matrix.pairs if pair.expected is None and pair.crashes), None)
    if untested is not None:
        lines.append(
            f"Not testable, most crashes first: {plain(untested.version)} with {plain(untested.factor)}"
            f" {plain(untested.level)}, {untested.crashes:,} crashed: {plain_note(untested.note)}."
        )
    if len(matrix.pairs) > limit:
        lines.append(f"{len(matrix.pairs) - limit:,} more pairs: --limit or --json shows them.")
    return [*lines, *found.notes]


def show(answer: Compatibility, limit: int, out: TextIO) -> None:
    """Print the tables with at most `limit` pairs of each product, and what each leaves out."""
    console = Console(file=out, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(file=out, highlight=False, width=WIDTH_PIPED)
    for found in answer.products:
        console.print(_table(found, limit))
        for line in _closing(found, limit):
            console.print(Text(f"- {line}"))
        console.print()
    if not answer.products:
        console.print("No device reported an update of any product in this time.")
    if answer.products_left_out:
        console.print(f"{answer.products_left_out:,} smaller products are left out: name one with --product.")
    console.print(
        Text(
            "expected: if the version's and the other's rates multiply. times: of that, * where counts are small."
            " log10: evidence for worse than either alone, and beyond both multiplied; for one look at one span."
        )
    )
