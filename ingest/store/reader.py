"""The read-only way into chdb: a few sessions that the engine itself keeps from writing and from running away.

Used by the HTTP endpoint. Each session is set once, then locked with `readonly = 1`: from then on the engine refuses
every write and every change of a setting. The invariant: at most `sessions` queries run at once, each bounded in time,
memory, threads and result.
"""

import queue
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chdb import ChdbError

from ingest.store.chdb import MEMORY_BYTES_MAX, open_session, store_error
from ingest.store.guard import Guard
from ingest.store.interface import StoreBusyError, StoreError, quoted


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds of one query, and of all of them.

    Attributes:
        sessions: queries at the same time.
        wait_seconds: how long a query waits for its turn before it is refused.
        execution_seconds_max: time of one query.
        result_rows_max: rows of one answer; more is an error, never a cut answer.
        result_bytes_max: bytes of one answer.
        read_bytes_max: bytes one query may read from tables.
        memory_bytes_max: memory of one query.
        threads_max: threads of one query.
    """

    sessions: int = 2
    wait_seconds: float = 2.0
    execution_seconds_max: int = 15
    result_rows_max: int = 100_000
    result_bytes_max: int = 32 << 20
    read_bytes_max: int = 20 << 30
    memory_bytes_max: int = 400 << 20
    threads_max: int = 1

    def settings(self) -> dict[str, int | str]:
        """Return ClickHouse's settings for these bounds; `readonly` comes last, since it locks the others."""
        return {
            "session_timezone": "'UTC'",
            "max_execution_time": self.execution_seconds_max,
            "max_result_rows": self.result_rows_max,
            "max_result_bytes": self.result_bytes_max,
            "max_bytes_to_read": self.read_bytes_max,
            "max_memory_usage": self.memory_bytes_max,
            "max_threads": self.threads_max,
            "max_block_size": 8192,
            "max_query_size": 65_536,
            "max_ast_elements": 10_000,
            "max_subquery_depth": 20,
            "use_uncompressed_cache": 0,
            "final": 1,
            "readonly": 1,
        }


class ChdbReader:
    """Read-only sessions on a folder that this process has open; thread-safe.

    Attributes:
        database: where names without a database are looked up.
    """

    def __init__(
        self,
        path: Path,
        database: str,
        limits: ReadLimits | None = None,
        engine_memory_bytes_max: int = MEMORY_BYTES_MAX,
    ) -> None:
        """Open the sessions and lock them.

        Raises:
            StoreError: the folder cannot be opened.
        """
        self.database = database
        self.limits = limits or ReadLimits()
        self._closed = threading.Event()
        self._free: queue.Queue[Any] = queue.Queue()
        self._all = [open_session(path, engine_memory_bytes_max) for _ in range(self.limits.sessions)]
        # As in the store: a session left open at interpreter exit was seen to end in a segmentation fault.
        self._release = [weakref.finalize(self, session.close) for session in self._all]
        try:
            for session in self._all:
                for name, value in self.limits.settings().items():
                    session.query(f"SET {name} = {value}")
                self._free.put(session)
            answer = self._all[0].query("SELECT name FROM system.table_functions", "TabSeparated")
        except (ChdbError, RuntimeError) as error:
            raise store_error(error) from error
        self._guard = Guard(frozenset(answer.bytes().decode().split()))

    def read(self, sql: str, form: str, parameters: Mapping[str, str], database: str) -> bytes:
        """Return the answer of one query; see `Reader.read`.

        Raises:
            RefusedError: the query would do more than read.
            StoreBusyError: no session came free in `wait_seconds`.
            StoreError: ClickHouse refused it or it ran into a bound.
        """
        statement = self._guard.check(sql)
        use = f"USE {quoted(database or self.database)}"
        if self._closed.is_set():
            raise StoreError("the store is closed")
        try:
            session = self._free.get(timeout=self.limits.wait_seconds)
        except queue.Empty:
            raise StoreBusyError(
                f"Code: 202. {self.limits.sessions} queries are running, as many as may; ask again in a moment", 202
            ) from None
        try:
            session.query(use)
            answer: bytes = session.query(statement, form, params=dict(parameters)).bytes()
        except (ChdbError, RuntimeError) as error:
            raise store_error(error) from error
        finally:
            self._free.put(session)
        if len(answer) > 2 * self.limits.result_bytes_max:
            raise StoreError(f"Code: 396. The answer has {len(answer)} bytes in {form}, ask for less", 396)
        return answer

    def close(self) -> None:
        """Release the sessions; running queries end first, by their time limit at the latest."""
        self._closed.set()
        for _ in self._all:
            self._free.get(timeout=self.limits.execution_seconds_max + 5)
        for release in self._release:
            release()
        self._all = []
