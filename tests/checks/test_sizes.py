"""Files and functions stay small enough to be read in one go."""

from __future__ import annotations

import ast
import re

import pytest

from support.repository_files import named, python_files, text_files

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
CODE_SUFFIXES = {".py", ".sh", ".sql", ".js", ".css", ".html", ".toml"}
# The one phrase that exempts a file, so that no other sentence does so by chance; it may wrap.
EXPLANATION = re.compile(r"longer than 400 lines[^.]*\bbecause\b", re.IGNORECASE)
EXPLANATION_LINES = 15


def explains_its_length(text: str) -> bool:
    return EXPLANATION.search("\n".join(text.splitlines()[:EXPLANATION_LINES])) is not None


def long_functions(source: str) -> list[tuple[int, str, int]]:
    """Return line, name and length of each function over the limit."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                found.append((node.lineno, node.name, length))
    return found


def test_files_end_before_the_limit_or_say_why_not() -> None:
    """A file of more than 400 lines says in its first 15: "Longer than 400 lines because ...".

    Golden files are what a program wrote, and nobody writes or reads them in one go.
    """
    too_long = []
    for path in text_files():
        if path.suffix in CODE_SUFFIXES and "golden" not in path.parts:
            text = path.read_text(encoding="utf-8")
            lines = text.count("\n")
            if lines > FILE_LINES_MAX and not explains_its_length(text):
                too_long.append(f"{named(path)}: {lines} lines")
    assert not too_long, "\n".join(too_long)


def test_functions_end_before_the_limit() -> None:
    """No function has more than 70 lines."""
    too_long = [
        f"{named(path)}:{line} {name} has {length} lines"
        for path in python_files()
        for line, name, length in long_functions(path.read_text(encoding="utf-8"))
    ]
    assert not too_long, "\n".join(too_long)


@pytest.mark.parametrize(("body_lines", "found"), [(FUNCTION_LINES_MAX - 1, 0), (FUNCTION_LINES_MAX, 1)])
def test_function_limit_holds_at_the_limit_and_fires_one_past_it(body_lines: int, found: int) -> None:
    """The check counts the `def` line: 70 lines pass, 71 do not."""
    assert len(long_functions("def f():\n" + "    pass\n" * body_lines)) == found


def test_an_explanation_counts_in_the_first_lines_only() -> None:
    """A reason given further down is not seen by whoever opens the file."""
    reason = "# Longer than 400 lines because the table is one table.\n"
    assert explains_its_length(reason + "x = 1\n" * 500)
    assert not explains_its_length("x = 1\n" * EXPLANATION_LINES + reason)
