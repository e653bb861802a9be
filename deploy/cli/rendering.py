"""Rows as text, in those of ClickHouse's formats that people and scripts ask `cordon query` for.

Over the native protocol a server sends values and formats nothing, so the few formats that are worth having are written
here, under ClickHouse's names.
"""

import csv
import io
from collections.abc import Callable
from typing import Any

import msgspec

from ingest.store.interface import Rows

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _word(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return _json(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tab_separated(answer: Rows, names: bool = False) -> str:
    rows = [answer.columns, *answer.rows] if names else answer.rows
    lines = ["\t".join("\\N" if value is None else _word(value).translate(_ESCAPES) for value in row) for row in rows]
    return "".join(f"{line}\n" for line in lines)


def _csv(answer: Rows, names: bool = False) -> str:
    out = io.StringIO()
    # Text is quoted, numbers are not, as ClickHouse has it.
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    if names:
        writer.writerow(answer.columns)
    for row in answer.rows:
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return "\\N"
    return _json(value) if isinstance(value, list | dict) else value


def _json_each_row(answer: Rows) -> str:
    return "".join(f"{_json(dict(zip(answer.columns, row, strict=True)))}\n" for row in answer.rows)


def _json_compact_each_row(answer: Rows) -> str:
    return "".join(f"{_json(row)}\n" for row in answer.rows)


def _pretty(answer: Rows) -> str:
    """Return a table with a line between head and rows; control characters are shown escaped."""
    cells = [answer.columns, *([_shown(value) for value in row] for row in answer.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "".join(f"{line}\n" for line in (lines[0], "  ".join("-" * width for width in widths), *lines[1:]))


def _shown(value: Any) -> str:
    text = "NULL" if value is None else _word(value).translate(_ESCAPES)
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


FORMATS: dict[str, Callable[[Rows], str]] = {
    "PrettyCompactMonoBlock": _pretty,
    "TabSeparated": _tab_separated,
    "TSV": _tab_separated,
    "TabSeparatedWithNames": lambda answer: _tab_separated(answer, names=True),
    "TSVWithNames": lambda answer: _tab_separated(answer, names=True),
    "CSV": _csv,
    "CSVWithNames": lambda answer: _csv(answer, names=True),
    "JSONEachRow": _json_each_row,
    "JSONCompactEachRow": _json_compact_each_row,
}
