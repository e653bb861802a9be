"""A store for previews that answers from memory, and a board to put hostile things into."""

import copy
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dashboards.grafana.build import folder
from dashboards.grafana.preview.asking import Ask
from dashboards.grafana.preview.definition import Board, board_of

START, END = datetime(2024, 7, 19, 4, tzinfo=UTC), datetime(2024, 7, 19, 5, tzinfo=UTC)
Told = tuple[Mapping[str, str], Sequence[Sequence[Any]]]
EVIL = "<img src=x onerror=\"alert('ring')\"></script><script>alert(1)</script>"
ROLLOUTS: Told = ({"value": "String", "text": "String"}, [["r-1", "a driver"]])
NO_MARKS: Told = ({"time": "Nullable(DateTime64(3, 'UTC'))", "text": "String"}, [])


def compact(told: Told) -> bytes:
    """Return ClickHouse's JSONCompact of columns (type by name) and rows."""
    columns, rows = told
    meta = [{"name": name, "type": kind} for name, kind in columns.items()]
    return json.dumps({"meta": meta, "data": rows, "rows": len(rows)}).encode()


def answering(told: Told, marks: Told = NO_MARKS, values: Told = ROLLOUTS) -> Ask:
    """Return a store that gives `told` to panels, `marks` to annotations, and `values` to variables."""

    def ask(sql: str) -> bytes:
        if "AS tags" in sql:
            return compact(marks)
        listing = sql.startswith(("SELECT DISTINCT", "SELECT rollout AS value"))
        return compact(values if listing else told)

    return ask


def made_of(uid: str) -> dict[str, Any]:
    """Return a committed board's JSON, to be changed."""
    found: dict[str, Any] = json.loads((folder() / f"{uid}.json").read_text())
    return found


def changed(made: dict[str, Any], label: str, **fields: Any) -> Board:
    """Return a board whose panel of that title has other fields."""
    made = copy.deepcopy(made)
    (panel,) = (one for one in made["panels"] if one["title"] == label)
    panel.update(fields)
    return board_of(made)
