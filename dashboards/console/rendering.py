"""Templates, and how numbers, times and other people's texts are written in them.

Behind every page. Invariants: all that is printed is escaped, whoever it comes from; and no text can hide or turn round
what stands beside it, since characters that control how others are shown are replaced.
"""

import hashlib
import math
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dashboards.console.overview import RolloutRow

FOLDER = Path(__file__).parent
_REPLACED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_DASH = "\N{EN DASH}"
RATIO_MAX = 10_000
ROWS_MAX = 1000


def plain(value: Any) -> Any:
    """Return what is printed of a value: texts without control and formatting characters, all else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup) or (value.isascii() and value.isprintable()):
        return value
    return "".join(_REPLACEMENT if unicodedata.category(char) in _REPLACED else char for char in value)


def moment(at_ms: int) -> Markup:
    """Return a time in UTC, as an element that scripts can read; 0 is no time."""
    if not at_ms:
        return Markup("\N{EN DASH}")
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), f"{at:%Y-%m-%d %H:%M:%S}Z"
    )


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with groups of thousands; None is a dash."""
    if value is None or math.isnan(value):
        return _DASH
    return f"{value:,.{digits}f}" if math.isfinite(value) else ("\N{INFINITY}" if value > 0 else "-\N{INFINITY}")


def ratio(value: float | None) -> str:
    """Return a ratio; beyond ten thousand only that it is, since no more can be meant by it."""
    return f"over {RATIO_MAX:,}" if value is not None and value > RATIO_MAX else number(value, 2)


def share(value: float | None) -> str:
    """Return a share as per cent; None is a dash."""
    return _DASH if value is None else f"{100 * value:.3g} %"


def span(seconds: float | None) -> str:
    """Return a length of time in its two largest units; None is a dash."""
    if seconds is None:
        return _DASH
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    for place, (name, size) in enumerate(units):
        if seconds >= size or name == "s":
            whole, rest = divmod(int(seconds), size)
            smaller = units[place + 1] if place + 1 < len(units) else None
            more = f" {rest // smaller[1]} {smaller[0]}" if smaller and rest // smaller[1] else ""
            return f"{whole} {name}{more}"
    return _DASH


class Renderer:
    """Renders templates; any thread."""

    def __init__(self) -> None:
        """Load the templates' folder and name the static files by what is in them."""
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=plain,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= {"moment": moment, "number": number, "ratio": ratio, "share": share, "span": span}
        self.files = StaticFiles()
        self._environment.globals |= {"static": self.files.url, "rollout_row": self.row}
        self._rows: dict[str, tuple[RolloutRow, Markup]] = {}

    def render(self, template: str, values: dict[str, Any]) -> str:
        """Return a template filled in."""
        return self._environment.get_template(template).render(values)

    def section(self, name: str, values: dict[str, Any]) -> str:
        """Return one section of a page."""
        return self.render(f"sections/{name}.html", values)

    def row(self, row: RolloutRow) -> Markup:
        """Return a rollout's row of a table: what was drawn before, while it is the very same object."""
        rollout = row.said.rollout
        known = self._rows.get(rollout)
        if known is None or known[0] is not row:
            if len(self._rows) >= ROWS_MAX:
                self._rows = {}
            # Escaped already, as every template's output is.
            known = self._rows[rollout] = row, Markup(self.render("row.html", {"row": row}))  # noqa: S704
        return known[1]


_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class StaticFiles:
    """The console's scripts and styles, in memory, under names that change with their content."""

    def __init__(self) -> None:
        """Read them all; they are few and small."""
        folder = FOLDER / "static"
        self._files = {
            path.relative_to(folder).as_posix().replace("/", "-"): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.suffix in _TYPES
        }
        self._digests = {name: hashlib.sha256(data).hexdigest()[:16] for name, data in self._files.items()}

    def url(self, name: str) -> str:
        """Return the address of a file.

        Raises:
            KeyError: there is none of that name.
        """
        return f"/console/static/{self._digests[name]}/{name}"

    def get(self, digest: str, name: str) -> tuple[bytes, str] | None:
        """Return a file's content and type; None where there is no such file or it is another by now."""
        if name not in self._files or self._digests[name] != digest:
            return None
        return self._files[name], _TYPES[Path(name).suffix]
