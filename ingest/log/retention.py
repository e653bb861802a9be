"""Compaction, retention and giving space back, in steps small enough that an append never waits long for one.

Each step is one short transaction that queues with the appends. Compaction deletes what `doomed` lists: records whose
key was written again, and tombstones past their delay. Retention deletes from a partition's beginning and moves its
first offset with them. Free pages are reused; when they are many, the file is cut.
"""

import sqlite3
from collections.abc import Callable, Mapping
from functools import partial

from ingest.log.heads import Head
from ingest.log.interface import TopicPartition
from ingest.log.schema import OFFSET_BITS, OFFSET_MASK, PAGE_BYTES, row_id
from ingest.log.transaction import Transaction

# Deleting ran at about 200 MB/s where it was measured, so a step holds the writer for some 20 ms.
STEP_RECORDS_MAX = 512
STEP_BYTES_MAX = 4 << 20
STEPS_MAX = 512
# Below this much free space, or this share of the file, the pages are left for the next appends.
FREE_BYTES_KEPT = 64 << 20
FREE_SHARE_KEPT = 4
VACUUM_PAGES_PER_STEP = 256

Step = Callable[[Transaction], bool]
Submit = Callable[[Step], bool]


def run(reader: sqlite3.Connection, heads: Mapping[TopicPartition, Head], now_ms: int, submit: Submit) -> int:
    """Do everything that is due at `now_ms`, at most `STEPS_MAX` steps; return how many were done.

    Args:
        reader: looks for work, so that a call with nothing to do writes nothing.
        heads: the partitions.
        now_ms: the log's clock.
        submit: runs one step in a transaction of its own and returns whether more of the same is due.
    """
    steps = 0
    while steps < STEPS_MAX and _compaction_due(reader, now_ms):
        submit(compact)
        steps += 1
    for source, head in heads.items():
        while steps < STEPS_MAX and _retention_due(reader, head, now_ms):
            submit(partial(retain, source=source))
            steps += 1
    while steps < STEPS_MAX and _vacuum_due(reader):
        submit(vacuum)
        steps += 1
    return steps


def _compaction_due(reader: sqlite3.Connection, now_ms: int) -> bool:
    return reader.execute("SELECT 1 FROM doomed WHERE due_ms <= ? LIMIT 1", (now_ms,)).fetchone() is not None


def compact(transaction: Transaction) -> bool:
    """Delete some of the records that are doomed by now."""
    connection = transaction.connection
    by_id = {head.id: source for source, head in transaction.heads.items()}
    due = connection.execute(
        "SELECT d.id, r.key, length(r.value) FROM doomed d LEFT JOIN records r ON r.id = d.id "
        "WHERE d.due_ms <= ? ORDER BY d.due_ms LIMIT ?",
        (transaction.now_ms, STEP_RECORDS_MAX),
    ).fetchall()
    room = STEP_BYTES_MAX
    deleted = []
    tombstones = []
    for number, key, stored_bytes in due:
        deleted.append((number,))
        if stored_bytes is None:
            tombstones.append((number >> OFFSET_BITS, key, number))
        size = len(key or b"") + (stored_bytes or 0)
        source = by_id.get(number >> OFFSET_BITS)
        if source is not None:
            transaction.head(source).stored_bytes -= size
        room -= size
        if room <= 0:
            break
    connection.executemany("DELETE FROM doomed WHERE id = ?", deleted)
    # A key whose tombstone goes is forgotten, unless it has been written again since.
    connection.executemany(
        "DELETE FROM latest WHERE (partition, key) = (SELECT ?1 >> 44, key FROM records WHERE id = ?1) AND id = ?1",
        deleted,
    )
    connection.executemany("DELETE FROM records WHERE id = ?", deleted)
    for source in transaction.changed:
        _find_last(transaction, source)
    return bool(deleted)


def _find_last(transaction: Transaction, source: TopicPartition) -> None:
    """Set the offset of the last record that is left, which a dropped tombstone may have been."""
    head = transaction.head(source)
    (number,) = transaction.connection.execute(
        "SELECT max(id) FROM records WHERE id >= ? AND id < ?", (row_id(head.id, 0), row_id(head.id + 1, 0))
    ).fetchone()
    head.last = -1 if number is None else number & OFFSET_MASK


def _retention_due(reader: sqlite3.Connection, head: Head, now_ms: int) -> bool:
    spec = head.spec
    if head.last < head.first:
        return False
    if spec.retention_bytes_max is not None and head.stored_bytes > spec.retention_bytes_max:
        return True
    if spec.retention_ms is None:
        return False
    row = reader.execute(
        "SELECT appended_at_ms FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT 1",
        (row_id(head.id, head.first), row_id(head.id + 1, 0)),
    ).fetchone()
    return row is not None and row[0] < now_ms - spec.retention_ms


def retain(transaction: Transaction, source: TopicPartition) -> bool:
    """Delete some of a partition's oldest records that are past their age or in excess of its bytes."""
    head = transaction.head(source)
    spec = head.spec
    from_ms = transaction.now_ms - spec.retention_ms if spec.retention_ms is not None else None

    def due(_number: int, appended_at_ms: int) -> bool:
        excess = spec.retention_bytes_max is not None and head.stored_bytes > spec.retention_bytes_max
        return excess or (from_ms is not None and appended_at_ms < from_ms)

    return _delete_first(transaction, head, due)


def trim(transaction: Transaction, source: TopicPartition, before: int) -> bool:
    """Delete some of a partition's records before an offset; once none is left, the partition begins there."""
    head = transaction.head(source)
    end = min(before, head.next)
    if not _delete_first(transaction, head, lambda number, _appended_at_ms: number < row_id(head.id, end)):
        head.first = max(head.first, end)
        return False
    return True


def _delete_first(transaction: Transaction, head: Head, due: Callable[[int, int], bool]) -> bool:
    """Delete the first records of a partition while they are due (asked with id and time), as many as a step takes."""
    room = STEP_BYTES_MAX
    end = None
    rows = transaction.connection.execute(
        "SELECT id, appended_at_ms, length(key), length(value) FROM records "
        "WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
        (row_id(head.id, head.first), row_id(head.id + 1, 0), STEP_RECORDS_MAX),
    ).fetchall()
    for number, appended_at_ms, key_bytes, stored_bytes in rows:
        if room <= 0 or not due(number, appended_at_ms):
            break
        size = (key_bytes or 0) + (stored_bytes or 0)
        head.stored_bytes -= size
        room -= size
        end = number + 1
    if end is None:
        return False
    transaction.connection.execute("DELETE FROM records WHERE id >= ? AND id < ?", (row_id(head.id, head.first), end))
    head.first = end & OFFSET_MASK
    return True


def _vacuum_due(reader: sqlite3.Connection) -> bool:
    (free,) = reader.execute("PRAGMA freelist_count").fetchone()
    (pages,) = reader.execute("PRAGMA page_count").fetchone()
    return bool(free * PAGE_BYTES > FREE_BYTES_KEPT and free * FREE_SHARE_KEPT > pages)


def vacuum(transaction: Transaction) -> bool:
    """Move some pages from the file's end into free ones and cut it."""
    for _ in range(VACUUM_PAGES_PER_STEP):
        # SQLite frees one page each time the statement is stepped, and Python's module steps it once.
        transaction.connection.execute("PRAGMA incremental_vacuum(1)")
    return True
