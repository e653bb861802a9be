"""Copies the write-ahead log into the SQLite file beside the writer, which would otherwise do it inside an append.

A passive checkpoint waits for nobody and nobody waits for it. Should it fall behind, the writer's own checkpoint at
`schema.WAL_BYTES_MAX` bounds the write-ahead log.
"""

import logging
import sqlite3
import threading
from pathlib import Path

from ingest.log import schema

_logger = logging.getLogger(__name__)


class Checkpointer:
    """A thread that checkpoints after every `schema.CHECKPOINT_BYTES` written."""

    def __init__(self, path: Path) -> None:
        """Start the thread for the file at `path`, which exists."""
        self._path = path
        self._written_bytes = 0
        self._due = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-checkpoint", daemon=True)
        self._thread.start()

    def wrote(self, size_bytes: int) -> None:
        """Note what a commit wrote; called by one writer at a time."""
        self._written_bytes += size_bytes
        if self._written_bytes > schema.CHECKPOINT_BYTES:
            self._written_bytes = 0
            self._due.set()

    def close(self) -> None:
        """End the thread and its connection."""
        self._closed = True
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            while True:
                self._due.wait()
                self._due.clear()
                if self._closed:
                    return
                try:
                    if connection is None:
                        connection = schema.connect(self._path, writes=False)
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                except sqlite3.Error as error:
                    _logger.warning("the log's checkpoint failed (%s); the next will catch up: check the disk", error)
        finally:
            if connection is not None:
                connection.close()
