"""What the store keeps of the past, for plots and tables: named queries, asked once for everybody who looks.

Between the store, in whatever way it is reached, and the pages. Invariants: every query is bounded in time and rows;
the same question is asked of the store once in `FRESH_SECONDS` or more, by however many viewers; and where there is no
store, or it does not answer, that is said.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ingest.store.interface import Reader, Store, StoreError
from ingest.store.parameters import parameter_text
from ingest.store.queries import named_queries

QUERIES = Path(__file__).parent / "queries"
FRESH_SECONDS = 20.0
# Rows that are not there yet may come at any moment: a rollout that was just pushed is looked at most of all.
EMPTY_FRESH_SECONDS = 2.0
KEPT_MAX = 256
NO_STORE = "This Cordon keeps no store, so there is no history. Run it with one, or point the process at a ClickHouse."
_line_decoder = msgspec.json.Decoder(list[Any])
Table = list[list[Any]]


class HistoryError(Exception):
    """There is no history to show; the message says why, and what to do."""


class Rows(Protocol):
    """A store that answers the console's queries."""

    def rows(self, name: str, values: dict[str, object]) -> Table:
        """Return the rows of a named query.

        Raises:
            StoreError: it is away, busy, or the query is more than it takes.
        """
        ...


class ReaderRows:
    """The store in this process, by its bounded reader."""

    def __init__(self, reader: Reader, database: str) -> None:
        """Take the reader and the lane's database."""
        self._reader, self._database = reader, database

    def rows(self, name: str, values: dict[str, object]) -> Table:
        """Return the rows; see `Rows`."""
        texts = {key: parameter_text(value) for key, value in values.items()}
        answer = self._reader.read(named_queries(QUERIES)[name].sql, "JSONCompactEachRow", texts, self._database)
        return [_line_decoder.decode(line) for line in answer.splitlines() if line]


class StoreRows:
    """A ClickHouse server, by a connection that only reads."""

    def __init__(self, store: Store) -> None:
        """Take the connection."""
        self._store = store

    def rows(self, name: str, values: dict[str, object]) -> Table:
        """Return the rows; see `Rows`."""
        return [list(row) for row in self._store.query(named_queries(QUERIES)[name].sql, values).rows]


class MemoryRows:
    """The in-memory twin: answers what a test has set, by the name of the query; any other has no rows.

    Attributes:
        answers: rows by query.
        asked: every question, in order.
        failure: raised instead of an answer, where one is set.
    """

    def __init__(self, answers: dict[str, Table] | None = None) -> None:
        """Take the answers."""
        self.answers = answers or {}
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.failure: StoreError | None = None

    def rows(self, name: str, values: dict[str, object]) -> Table:
        """Return the rows; see `Rows`.

        Raises:
            KeyError: no query has that name, or it takes other parameters.
        """
        if {parameter.name for parameter in named_queries(QUERIES)[name].parameters} != set(values):
            raise KeyError(f"{name} takes other parameters than {sorted(values)}")
        self.asked.append((name, values))
        if self.failure is not None:
            raise self.failure
        return self.answers.get(name, [])


class History:
    """Answers of the store, kept for a moment; its methods belong to the event loop."""

    def __init__(self, rows: Rows | None, timer: Callable[[], float] = time.monotonic) -> None:
        """Take the store; None where there is none."""
        self._rows = rows
        self._timer = timer
        self._kept: OrderedDict[tuple[object, ...], tuple[float, asyncio.Future[Table]]] = OrderedDict()

    @property
    def there(self) -> bool:
        """Whether there is a store."""
        return self._rows is not None

    async def ask(self, name: str, fresh_seconds: float = FRESH_SECONDS, /, **values: object) -> Table:
        """Return a named query's rows; the very same object while they are new enough.

        Args:
            name: of the query.
            fresh_seconds: how long an answer is new enough.
            values: the query's parameters.

        Raises:
            HistoryError: there is no store, or it does not answer.
        """
        rows = self._rows
        if rows is None:
            raise HistoryError(NO_STORE)
        key = (name, *sorted(values.items()))
        now, known = self._timer(), self._kept.get(key)
        if known is not None and (not known[1].done() or now - known[0] < _fresh(known[1], fresh_seconds)):
            return await asyncio.shield(known[1])
        asked = asyncio.ensure_future(self._asked(rows, name, values))
        # Whoever comes meanwhile waits for the same answer; one that nobody awaits any more must not complain.
        asked.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._kept[key] = now, asked
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return await asyncio.shield(asked)

    async def _asked(self, rows: Rows, name: str, values: dict[str, object]) -> Table:
        try:
            return await asyncio.to_thread(rows.rows, name, values)
        except StoreError as error:
            text = str(error).strip().partition("\n")[0][:200]
            raise HistoryError(f"The store did not answer: {text}. It is asked again in a moment.") from error


def _fresh(answer: "asyncio.Future[Table]", fresh_seconds: float) -> float:
    there = answer.exception() is not None or bool(answer.result())
    return fresh_seconds if there else min(fresh_seconds, EMPTY_FRESH_SECONDS)
