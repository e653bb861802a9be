"""What the rest of Cordon may ask of a ClickHouse, in process or a cluster, and the in-memory twin.

Everything above this file speaks SQL that any ClickHouse serves. The invariant that the sink builds on: `insert` of one
call either raises, and then may have written anything between nothing and all of it, or has written all of it.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ingest.topics import LIVE_LANE

# ClickHouse's own code for arguments that make no sense.
BAD_ARGUMENTS = 36

# One table's rows, by column: plain Python values, times as integers since the epoch (seconds for DateTime,
# milliseconds for DateTime64(3)).
Columns = Mapping[str, Sequence[Any]]


class StoreError(Exception):
    """The store could not do what was asked; the message says why.

    Attributes:
        code: ClickHouse's error code; 0 where it gave none.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class StoreMismatchError(StoreError):
    """The store was filled from another log: its rows and this log's would be mistaken for each other."""


class StoreBusyError(StoreError):
    """All readers are taken; ask again in a moment."""


class Rows(NamedTuple):
    """A query's answer.

    Attributes:
        columns: the names, in order.
        rows: the values; times as text, as ClickHouse's JSON has them.
    """

    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True, slots=True)
class Engines:
    """Which table engines the migrations name: those of one server, or the replicated ones of a cluster.

    Attributes:
        replicated: use the `Replicated` variant of each MergeTree engine.
        cluster: name for `ON CLUSTER`; empty for one server.
        database: on a cluster of several shards: where the `Distributed` tables are that everybody reads and writes;
            each shard's own tables are beside it, in `local_database`. Empty: the tables themselves are all there is.
    """

    replicated: bool = False
    cluster: str = ""
    database: str = ""

    @property
    def local_database(self) -> str:
        """The database of each shard's own tables; empty where they are in the current one."""
        return f"{self.database}_local" if self.cluster and self.database else ""

    def words(self) -> dict[str, str]:
        """Return what the placeholders of migrations stand for.

        Raises:
            StoreError: the cluster's name is not a plain word.
        """
        if self.cluster and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.cluster):
            raise StoreError(f"cluster name {self.cluster!r}: use letters, digits, '_' and '-', 64 at most")
        return {
            "replicated": "Replicated" if self.replicated else "",
            "on_cluster": f"ON CLUSTER `{self.cluster}`" if self.cluster else "",
            "local": f"{quoted(self.local_database)}." if self.local_database else "",
        }


class Store(Protocol):
    """A ClickHouse database of one lane, for its one writer; thread-safe, one statement at a time."""

    def execute(self, sql: str) -> None:
        """Run one statement that has no answer.

        Raises:
            StoreError: ClickHouse refused it.
        """
        ...

    def insert(self, table: str, columns: Columns) -> None:
        """Insert rows as one block; columns that are not named take their defaults.

        Raises:
            StoreError: it failed, and may have been written or not.
        """
        ...

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        """Return the answer of one query; `{name:Type}` in it is replaced by the parameter.

        Raises:
            StoreError: ClickHouse refused it.
        """
        ...

    def close(self) -> None:
        """Release the store; later calls raise `StoreError`."""
        ...


class Reader(Protocol):
    """The read-only, bounded way in, for people."""

    def read(self, sql: str, form: str, parameters: Mapping[str, str], database: str) -> bytes:
        """Return the answer in ClickHouse's output format `form`.

        Raises:
            StoreBusyError: all readers are taken.
            StoreError: the query is refused or failed.
        """
        ...


def database_of(lane: str) -> str:
    """Return the database of a lane: `cordon` for `live`, else `cordon_` and the lane with `-` as `_`."""
    return "cordon" if lane == LIVE_LANE else f"cordon_{lane.replace('-', '_')}"


def quoted(name: str) -> str:
    """Return `name` as a quoted identifier.

    Raises:
        StoreError: it holds a character that no name of Cordon's has.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name):
        raise StoreError(f"{name!r} is no name of a table or database: letters, digits and '_' only", BAD_ARGUMENTS)
    return f"`{name}`"


class MemoryStore:
    """The in-memory twin of a store, for tests of what writes to one: keeps blocks as inserted and fails on demand.

    It speaks no SQL: `query` answers what a test set in `answers`, by the text of the query.

    Attributes:
        statements: what `execute` was given.
        blocks: every insert that succeeded, as (table, columns).
        answers: text of a query to its answer; others have an empty one.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.statements: list[str] = []
        self.blocks: list[tuple[str, dict[str, list[Any]]]] = []
        self.answers: dict[str, Rows] = {}
        self._failures: list[tuple[StoreError, bool]] = []
        self._lock = threading.Lock()
        self._closed = False

    def fail_next_insert(self, error: StoreError | None = None, *, written: bool = False) -> None:
        """Make the next insert raise; with `written`, after it took effect."""
        self._failures.append((error or StoreError("the store refused this insert, as a test ordered"), written))

    def execute(self, sql: str) -> None:
        """Remember the statement; see `Store.execute`."""
        self._check_open()
        self.statements.append(sql)

    def insert(self, table: str, columns: Columns) -> None:
        """Remember the block; see `Store.insert`."""
        self._check_open()
        lengths = {len(values) for values in columns.values()}
        if lengths in (set(), {0}):
            return
        if len(lengths) > 1:
            raise StoreError(f"the columns of one insert have {sorted(lengths)} rows: give all of them the same")
        with self._lock:
            failure = self._failures.pop(0) if self._failures else None
            if failure is None or failure[1]:
                self.blocks.append((table, {name: list(values) for name, values in columns.items()}))
            if failure is not None:
                raise failure[0]

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        """Return the answer a test set; see `Store.query`."""
        del parameters
        self._check_open()
        return self.answers.get(sql, Rows([], []))

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return what was inserted into a table, a dictionary a row."""
        return [
            dict(zip(columns, values, strict=True))
            for name, columns in self.blocks
            if name == table
            for values in zip(*columns.values(), strict=True)
        ]

    def close(self) -> None:
        """Refuse whatever comes after; see `Store.close`."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed: open it again")
