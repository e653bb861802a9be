"""Named queries: the SQL that boards and the command line share, a file each in `queries/`.

A file begins with comment lines: what the query answers, then `-- param NAME TYPE: what it is` for each parameter. The
invariant: what a file declares is what its SQL uses, so a query's page of documentation cannot be wrong about it.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "queries"
_PARAMETER = re.compile(r"^param (\w+) ([\w() ']+): (.+)$")
_USED = re.compile(r"\{(\w+):([^}]+)\}")


class QueryFileError(Exception):
    """A query file does not say what it needs; the message names it."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its name, ClickHouse type and meaning."""

    name: str
    type: str
    doc: str


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """One query: its name, what it answers, its parameters and its SQL."""

    name: str
    doc: str
    parameters: tuple[Parameter, ...]
    sql: str


def parse_query(name: str, text: str) -> NamedQuery:
    """Return the query in the text of a file.

    Raises:
        QueryFileError: no description, or parameters that are declared and not used, or the other way round.
    """
    head = [line[2:].strip() for line in text.splitlines() if line.startswith("--")]
    declared = tuple(Parameter(*match.groups()) for match in map(_PARAMETER.match, head) if match is not None)
    doc = " ".join(line for line in head if _PARAMETER.match(line) is None)
    sql = "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip()
    if not doc:
        raise QueryFileError(f"{name}: begin the file with a comment that says what the query answers")
    stated = {(parameter.name, parameter.type) for parameter in declared}
    used = set(_USED.findall(sql))
    if stated != used:
        raise QueryFileError(f"{name}: declares {sorted(stated)} but uses {sorted(used)}")
    return NamedQuery(name, doc, declared, sql)


@functools.cache
def named_queries(folder: Path = FOLDER) -> dict[str, NamedQuery]:
    """Return every named query by name.

    Raises:
        QueryFileError: a file is not in order.
    """
    return {
        path.stem: parse_query(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.sql"))
    }
