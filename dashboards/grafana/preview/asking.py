"""The questions of a panel, put to a store as Grafana would put them, and the answers as typed columns.

Between a board's definition and what is drawn. Invariant: what is asked is the committed query with its macros and
variables filled in (`dashboards.grafana.macros`), never another one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from dashboards.grafana.macros import MacroError, View, expand
from dashboards.grafana.preview.definition import Board, PreviewError
from dashboards.grafana.queries import Language, Query

FORM: Final = "JSONCompact"
# Takes SQL and gives ClickHouse's answer in the format `FORM`.
Ask = Callable[[str], bytes]
_WRAPPED: Final = re.compile(r"(?:Nullable|LowCardinality)\((.*)\)")
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400)


class Kind(StrEnum):
    """What a column holds: moments, numbers, or anything else as text."""

    TIME = "time"
    NUMBER = "number"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave.

    Attributes:
        names: of the columns.
        kinds: of the columns.
        rows: values by column: seconds since the epoch, numbers, texts; None where there is none.
    """

    names: Sequence[str]
    kinds: Sequence[Kind]
    rows: Sequence[Sequence[Any]]

    def places(self, kind: Kind) -> list[int]:
        """Return which columns are of a kind."""
        return [place for place, one in enumerate(self.kinds) if one is kind]


class _Column(msgspec.Struct):
    name: str
    type: str


class _Compact(msgspec.Struct):
    meta: list[_Column]
    data: list[list[Any]]


def view_of(
    board: Board, start: datetime, end: datetime, points: int, chosen: Mapping[str, Sequence[str]], ask: Ask
) -> View:
    """Return what a person looks at who has opened the board.

    Args:
        board: whose variables are filled in.
        start: begin of the time range.
        end: its end.
        points: how many points fit into the width, from which follows what one stands for.
        chosen: values by variable; of any other all there are, or the first where only one may be chosen.
        ask: the store.

    Raises:
        PreviewError: a variable is not the board's, or has no value in this time.
    """
    names = [variable.name for variable in board.variables]
    if unknown := sorted(set(chosen) - set(names)):
        raise PreviewError(f"board {board.uid} has no variable {unknown[0]!r}; its variables: {', '.join(names)}")
    wanted = (end - start).total_seconds() / max(points, 1)
    step = next((one for one in _STEPS if one >= wanted), _STEPS[-1])
    found: dict[str, Sequence[str]] = {}
    for variable in board.variables:
        given = chosen.get(variable.name) or _listed(variable.sql, View(start, end, step, found), variable.name, ask)
        if not given:
            raise PreviewError(
                f"variable {variable.name!r} has no value in this time: choose another time, or one by name"
            )
        found[variable.name] = given if variable.several else given[:1]
    return View(start, end, step, found)


def answered(sql: str, name: str, view: View, ask: Ask) -> Answer:
    """Return what a query of a board gives in a view.

    Args:
        sql: the query as it is committed.
        name: of what asks it, for errors.
        view: fills in its variables and macros.
        ask: the store.

    Raises:
        PreviewError: it has a macro that is not known here, or the answer can't be read.
    """
    try:
        return answer_of(ask(expand(Query(name, Language.SQL, name, sql), view)))
    except (MacroError, msgspec.MsgspecError) as error:
        raise PreviewError(str(error)) from error


def answer_of(data: bytes) -> Answer:
    """Return ClickHouse's answer in the format `FORM` as typed columns.

    Raises:
        msgspec.MsgspecError: it is not of that format.
    """
    told = msgspec.json.decode(data, type=_Compact)
    kinds = [_kind(column.type) for column in told.meta]
    rows = [[_value(value, kind) for value, kind in zip(row, kinds, strict=True)] for row in told.data]
    return Answer([column.name for column in told.meta], kinds, rows)


def _listed(sql: str, view: View, name: str, ask: Ask) -> list[str]:
    answer = answered(sql, f"variable {name}", view, ask)
    place = answer.names.index("value") if "value" in answer.names else 0
    return [str(row[place]) for row in answer.rows]


def _kind(told: str) -> Kind:
    while (wrapped := _WRAPPED.fullmatch(told)) is not None:
        told = wrapped[1]
    if told.startswith("Date"):
        return Kind.TIME
    return Kind.NUMBER if told.startswith(("Int", "UInt", "Float", "Decimal")) else Kind.TEXT


def _value(value: Any, kind: Kind) -> Any:
    if value is None:
        return None
    if kind is Kind.NUMBER:
        # ClickHouse writes integers of 64 bits as texts.
        return float(value)
    if kind is Kind.TIME:
        return datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp()
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
