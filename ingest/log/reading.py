"""Reads the embedded log's file: connections lent to whoever reads, one snapshot for each read.

Readers never wait for the writer. The invariant: bounds and records of one read come from the same snapshot, so what
retention takes meanwhile is never mistaken for a hole that compaction left.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from ingest.log import schema
from ingest.log.codec import Codec
from ingest.log.interface import OffsetGoneError, Record, TopicPartition

IDLE_CONNECTIONS_MAX = 8


def gone(source: TopicPartition, offset: int, first: int) -> OffsetGoneError:
    """Return the error for an offset that retention has passed."""
    return OffsetGoneError(
        f"{source.topic}/{source.partition} starts at {first}: offset {offset} has passed its retention"
    )


class FileReader:
    """Lends reading connections; as many exist as threads read at once, and some stay open for the next."""

    def __init__(self, path: Path, codec: Codec) -> None:
        """Read the file at `path`, which exists."""
        self._path = path
        self._codec = codec
        self._mutex = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection."""
        with self._mutex:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = schema.connect(self._path, writes=False)
        try:
            yield connection
        finally:
            with self._mutex:
                keep = not self._closed and len(self._idle) < IDLE_CONNECTIONS_MAX
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def read(self, source: TopicPartition, number: int, offset: int, max_records: int, max_bytes: int) -> list[Record]:
        """Return records of the partition with this number, as `Log.read` does.

        Raises:
            OffsetGoneError: retention has passed the offset.
            LogError: a stored record is damaged.
            sqlite3.Error: the file cannot be read.
        """
        records: list[Record] = []
        room = max_bytes
        with self.connection() as connection, _snapshot(connection):
            (first,) = connection.execute("SELECT first FROM partitions WHERE id = ?", (number,)).fetchone()
            if offset < first:
                raise gone(source, offset, first)
            rows = connection.execute(
                "SELECT id, key, codec, value, appended_at_ms FROM records "
                "WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
                (schema.row_id(number, offset), schema.row_id(number + 1, 0), max(max_records, 1)),
            )
            with contextlib.closing(rows):
                for row_id, key, codec, stored, appended_at_ms in rows:
                    room -= self._codec.plain_bytes(codec, stored) + len(key or b"")
                    if records and room < 0:
                        break
                    value = self._codec.decode(codec, stored)
                    records.append(Record(row_id & schema.OFFSET_MASK, key, value, appended_at_ms))
        return records

    def close(self) -> None:
        """Close the idle connections; one that is lent is closed when it comes back."""
        with self._mutex:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


@contextlib.contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")
