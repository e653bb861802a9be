"""ClickHouse in the process: chdb on a folder, one writer and a few read-only sessions.

The composition root opens one `ChdbStore` for the sink's thread and a `ChdbReader` for people. Invariants: one process
per folder (ClickHouse locks it), and a bounded engine: threads and memory are set at start, because two cores are
shared with the pipeline.
"""

import contextlib
import re
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import msgspec
import pyarrow as pa
from chdb import ChdbError
from chdb.session import Session

from ingest.store.arrow import field_of, rows_of
from ingest.store.interface import Columns, Rows, StoreError, quoted
from ingest.store.parameters import parameter_text

# `insert_deduplicate` off: keys make a repeated block harmless, and on a cluster ClickHouse's own deduplication would
# skip the views of a block whose raw rows had got in before a kill.
WRITER_SETTINGS: dict[str, int | str] = {
    "session_timezone": "'UTC'",
    "max_threads": 1,
    "max_insert_threads": 1,
    "insert_deduplicate": 0,
    "max_insert_block_size": 10_000_000,
    "min_insert_block_size_rows": 10_000_000,
    "min_insert_block_size_bytes": 1 << 40,
    "materialized_views_ignore_errors": 0,
    "materialize_ttl_after_modify": 0,
}
MEMORY_BYTES_MAX = 2 << 30
_CODE = re.compile(r"Code: (\d+)")
_json = msgspec.json.Decoder(list[Any])


def store_error(error: Exception) -> StoreError:
    """Return chdb's exception as a `StoreError` with ClickHouse's code."""
    text = str(error)
    found = _CODE.search(text)
    return StoreError(text, int(found.group(1)) if found else 0)


def open_session(path: Path, memory_bytes_max: int = MEMORY_BYTES_MAX) -> Any:
    """Open one session on a folder; several of one process share an engine, whose limits are those of the first.

    Raises:
        StoreError: another process has the folder open, or it cannot be written.
    """
    limits = {
        "max_server_memory_usage": memory_bytes_max,
        "background_pool_size": 1,
        "background_schedule_pool_size": 4,
        "mark_cache_size": 64 << 20,
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        # chdb's Session has no annotations.
        return cast(Any, Session)(f"{path.resolve()}?{urlencode(limits)}")
    except (OSError, ChdbError, RuntimeError) as error:
        raise StoreError(f"cannot open the store in {path}: {error}; does another Cordon run on it?") from error


class ChdbStore:
    """The store of one lane on a folder; thread-safe, one statement at a time."""

    def __init__(self, path: Path, database: str, memory_bytes_max: int = MEMORY_BYTES_MAX) -> None:
        """Open the folder and create the database where it is missing.

        Raises:
            StoreError: another process has the folder open, or it cannot be written.
        """
        self.path = path
        self.database = database
        self._lock = threading.Lock()
        self._fields: dict[str, dict[str, pa.Field]] = {}
        self._session: Any = open_session(path, memory_bytes_max)
        # A session left open at interpreter exit was seen to end in a segmentation fault.
        self._release = weakref.finalize(self, self._session.close)
        self.execute(f"CREATE DATABASE IF NOT EXISTS {quoted(database)}")
        self.execute(f"USE {quoted(database)}")
        for name, value in WRITER_SETTINGS.items():
            self.execute(f"SET {name} = {value}")

    def _open(self) -> Any:
        if self._session is None:
            raise StoreError("the store is closed: open it again")
        return self._session

    def execute(self, sql: str) -> None:
        """Run one statement; see `Store.execute`."""
        with self._lock:
            try:
                self._open().query(sql, "Null")
            except (ChdbError, RuntimeError) as error:
                raise store_error(error) from error

    def insert(self, table: str, columns: Columns) -> None:
        """Insert one block; see `Store.insert`."""
        if not columns or not next(iter(columns.values())):
            return
        # chdb looks `rows` up by its name, in the frame of its caller.
        rows = rows_of(columns, self._fields_of(table))  # noqa: F841
        names = ", ".join(quoted(name) for name in columns)
        with self._lock:
            try:
                # Not chdb's streaming insert, which reports as written what a constraint, a view or a full disk
                # refused (seen in 4.4).
                sql = f"INSERT INTO {quoted(table)} ({names}) SELECT * FROM Python(rows)"  # noqa: S608  # Quoted names.
                self._open().query(sql, "Null")
            except (ChdbError, RuntimeError) as error:
                raise store_error(error) from error

    def _fields_of(self, table: str) -> dict[str, pa.Field]:
        if table not in self._fields:
            found = self.query(
                "SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String}"
                " AND type NOT LIKE 'AggregateFunction%'",
                {"database": self.database, "table": table},
            )
            if not found.rows:
                raise StoreError(f"no table {table} in {self.database}: run the migrations")
            self._fields[table] = {name: field_of(name, of) for name, of in found.rows}
        return self._fields[table]

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        """Return the answer; see `Store.query`."""
        texts = {name: parameter_text(value) for name, value in (parameters or {}).items()}
        with self._lock:
            try:
                answer = self._open().query(sql, "JSONCompactEachRowWithNames", params=texts)
            except (ChdbError, RuntimeError) as error:
                self._flush()
                raise store_error(error) from error
            lines = [_json.decode(line) for line in answer.bytes().splitlines() if line]
        return Rows(lines[0], lines[1:]) if lines else Rows([], [])

    def _flush(self) -> None:
        """Empty chdb's buffer: what a query had written when it failed comes with the next answer (seen in 4.4)."""
        with contextlib.suppress(ChdbError, RuntimeError):
            self._session.query("SELECT 1", "Null")

    def close(self) -> None:
        """Release the folder, once no reader is open either; see `Store.close`."""
        with self._lock:
            if self._session is not None:
                self._release()
                self._session = None
