"""The embedded log's SQLite file: its tables, its connections, and what is fixed when it is created.

One rowid table holds every record under `partition id << 44 | offset`: a partition is a range of the b-tree, no second
index is needed, and large values go to overflow pages (README.md has the layouts that were measured against it).
"""

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from ingest.log.interface import LogError
from ingest.log.specs import TopicSpec

FILE_NAME = "log.sqlite3"
LAYOUT = 1
OFFSET_BITS = 44
OFFSET_MASK = (1 << OFFSET_BITS) - 1

PAGE_BYTES = 8192
CACHE_KIB = 16 << 10
MMAP_BYTES = 1 << 30
# The checkpointer keeps the write-ahead log near CHECKPOINT_BYTES; the writer itself steps in at WAL_BYTES_MAX.
CHECKPOINT_BYTES = 8 << 20
WAL_BYTES_MAX = 64 << 20
BUSY_SECONDS = 5.0

_TABLES = (
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE topics(name TEXT PRIMARY KEY, partitions INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE partitions(id INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL,
       first INTEGER NOT NULL, next INTEGER NOT NULL, bytes INTEGER NOT NULL, UNIQUE(topic, partition))""",
    # The value is last: a row's other columns are then read without touching its overflow pages.
    "CREATE TABLE records(id INTEGER PRIMARY KEY, appended_at_ms INTEGER, codec INTEGER, key BLOB, value BLOB)",
    "CREATE TABLE latest(partition INTEGER, key BLOB, id INTEGER, PRIMARY KEY(partition, key)) WITHOUT ROWID",
    "CREATE TABLE doomed(id INTEGER PRIMARY KEY, due_ms INTEGER NOT NULL)",
    "CREATE INDEX doomed_due ON doomed(due_ms)",
    "CREATE TABLE fences(name TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE commits(consumers TEXT, partition INTEGER, next INTEGER NOT NULL,
       PRIMARY KEY(consumers, partition)) WITHOUT ROWID""",
)


def row_id(number: int, offset: int) -> int:
    """Return the record id of an offset in the partition with this number."""
    return number << OFFSET_BITS | offset


def connect(path: Path, *, writes: bool) -> sqlite3.Connection:
    """Open a connection with this log's settings; statements commit by themselves unless BEGIN was said.

    Args:
        path: the file; only the writer may be the first to open it.
        writes: whether this is the writer.
    """
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    if writes:
        # The first two hold for a new file only, before its first table. All three would make a reader wait for a
        # writer's lock, and they are kept in the file.
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB if writes else CACHE_KIB // 8}")
    connection.execute(f"PRAGMA mmap_size = {0 if writes else MMAP_BYTES}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_BYTES_MAX // PAGE_BYTES if writes else 0}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
    return connection


def prepare(connection: sqlite3.Connection, directory: Path, specs: Iterable[TopicSpec]) -> None:
    """Create the tables in a new file, check an old one, and register topics it does not know yet.

    Raises:
        LogError: the file was written by a newer Cordon, or a topic's partition count is not the one it began with.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
            for statement in _TABLES:
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES('layout', ?)", (LAYOUT,))
        _check_layout(connection, directory)
        for spec in specs:
            _register(connection, directory, spec)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    # SQLite syncs the files it writes; the entry of a new file in its directory is ours to sync.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_files(directory: Path) -> None:
    """Delete the files of a closed log: everything in it is gone, and its offsets begin anew."""
    for suffix in ("", "-wal", "-shm"):
        (directory / f"{FILE_NAME}{suffix}").unlink(missing_ok=True)


def _check_layout(connection: sqlite3.Connection, directory: Path) -> None:
    (layout,) = connection.execute("SELECT value FROM meta WHERE name = 'layout'").fetchone()
    if layout != LAYOUT:
        raise LogError(
            f"the log in {directory} has layout {layout}, this Cordon reads {LAYOUT}: use the one that wrote it"
        )


def _register(connection: sqlite3.Connection, directory: Path, spec: TopicSpec) -> None:
    row = connection.execute("SELECT partitions FROM topics WHERE name = ?", (spec.name,)).fetchone()
    if row is None:
        connection.execute("INSERT INTO topics VALUES(?, ?)", (spec.name, spec.partitions))
        connection.executemany(
            "INSERT INTO partitions(topic, partition, first, next, bytes) VALUES(?, ?, 0, 0, 0)",
            [(spec.name, partition) for partition in range(spec.partitions)],
        )
    elif row[0] != spec.partitions:
        raise LogError(
            f"topic {spec.name} was created with {row[0]} partitions in {directory} and is now asked for with "
            f"{spec.partitions}: the count is fixed for an installation's life. Set it back, or choose another --data."
        )
