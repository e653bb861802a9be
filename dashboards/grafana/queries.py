"""The queries of the boards: a file each, with what it shows in its first line.

Read by the boards, which name them, and by the tests, which run every one. Invariant: a query that no panel, variable
or annotation names does not exist.
"""

from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import PurePosixPath

_MARKS = {".sql": "-- ", ".promql": "# "}


class Language(StrEnum):
    """Which data source a query is for."""

    SQL = "sql"
    PROMQL = "promql"


@dataclass(frozen=True, slots=True)
class Query:
    """One query.

    Attributes:
        name: folder and file, such as `fleet/crash_rate`.
        language: what it is written in.
        about: what it shows, in a sentence.
        text: the query itself, without its first line.
    """

    name: str
    language: Language
    about: str
    text: str


class QueryError(Exception):
    """A query file is missing or does not say what it shows."""


def query(name: str) -> Query:
    """Return the query of that name.

    Raises:
        QueryError: there is none, or two, or its first line is no comment.
    """
    folder = resources.files("dashboards.grafana") / "queries"
    found = [(suffix, folder / f"{name}{suffix}") for suffix in _MARKS if (folder / f"{name}{suffix}").is_file()]
    if len(found) != 1:
        raise QueryError(f"query {name!r}: {len(found)} files of that name under queries/, one is needed")
    suffix, file = found[0]
    about, _, text = file.read_text(encoding="utf-8").partition("\n")
    mark = _MARKS[suffix]
    if not about.startswith(mark) or not text.strip():
        raise QueryError(f"query {name!r}: its first line has to say what it shows, after {mark!r}")
    return Query(name, Language(suffix[1:]), about.removeprefix(mark).strip(), text.strip())


def names() -> list[str]:
    """Return the names of all query files."""
    folder = resources.files("dashboards.grafana") / "queries"
    found = []
    for inner in folder.iterdir():
        if inner.is_dir():
            found += [f"{inner.name}/{PurePosixPath(file.name).stem}" for file in inner.iterdir()]
    return sorted(found)
