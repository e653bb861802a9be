"""The embedded log: SQLite in WAL mode, one owner process, no server.

It stands where Kafka stands in the distributed way, between the gateway and every stage. Invariants:
    - An acknowledged append survives SIGKILL and power loss (`synchronous=FULL`; group commit shares the fsync).
    - An append is visible only once it is durable, whole or not at all, with consecutive offsets per partition.
    - Offsets come from a counter in the same transaction, so they are never reused, whatever was deleted.
    - Readers have connections of their own and never wait for the writer.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from ingest.clock import Clock
from ingest.log import retention, schema
from ingest.log.checkpoint import Checkpointer
from ingest.log.codec import Codec
from ingest.log.group_commit import GroupCommit, Unit
from ingest.log.heads import TAIL_BYTES_MAX, Head, Tails, Waiting
from ingest.log.interface import (
    Entry,
    Fence,
    LogError,
    LogFullError,
    LogUnavailableError,
    Record,
    TopicPartition,
)
from ingest.log.lockfile import DirectoryLock
from ingest.log.reading import FileReader, gone
from ingest.log.specs import TopicSpecs, by_partition, require_key, spec_of
from ingest.log.transaction import Prepared, Transaction

TOMBSTONE_MS = 24 * 3_600_000


class EmbeddedLog:
    """A durable log in a directory of its own; thread-safe."""

    def __init__(
        self,
        directory: Path,
        specs: TopicSpecs,
        clock: Clock,
        *,
        tombstone_ms: int = TOMBSTONE_MS,
        tail_bytes_max: int = TAIL_BYTES_MAX,
        bytes_max: int | None = None,
    ) -> None:
        """Open or create the log.

        Args:
            directory: where it lives; created if it is missing.
            specs: every topic this process may use. Topics of other lanes that the file holds are left alone.
            clock: stamps records and decides retention.
            tombstone_ms: how long a tombstone stays readable before compaction drops it.
            tail_bytes_max: memory for the newest records, which keeps consumers that keep up off the disk.
            bytes_max: keys and values stored, over all topics; an append beyond it is refused. None has no bound.

        Raises:
            LogError: another process owns the directory, or the file and `specs` disagree.
            LogUnavailableError: the file cannot be opened or created.
        """
        self._directory = directory
        self._specs = by_partition(specs)
        self._clock = clock
        self._tombstone_ms = tombstone_ms
        self._bytes_max = bytes_max
        self._codec = Codec()
        self._closed = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LogUnavailableError(f"cannot make {directory} ({error}): choose another --data") from error
        self._lock = DirectoryLock(directory)
        with contextlib.ExitStack() as undo, self._translated("open"):
            undo.callback(self._lock.release)
            self._writer = schema.connect(self._path, writes=True)
            undo.callback(self._writer.close)
            schema.prepare(self._writer, directory, specs)
            self._heads = self._load_heads()
            self._committed = self._load_commits()
            undo.pop_all()
        self._doubtful = False
        self._tails = Tails(tail_bytes_max)
        self._waiting = Waiting(self._heads)
        self._commits: GroupCommit[Transaction] = GroupCommit(self._execute)
        self._maintaining = threading.Lock()
        self._reader = FileReader(self._path, self._codec)
        self._checkpointer = Checkpointer(self._path)

    @property
    def _path(self) -> Path:
        return self._directory / schema.FILE_NAME

    # Writing.

    def append(self, entries: Sequence[Entry], fence: Fence | None = None) -> list[int]:
        """Append all entries or none, durably; see `Log.append`. Calls from several threads share an fsync."""
        self._check_open()
        prepared = [self._prepare(entry) for entry in entries]
        size_bytes = sum(len(entry.key or b"") + len(entry.stored or b"") for entry in prepared)

        def work(transaction: Transaction) -> list[int]:
            transaction.check(fence)
            self._check_room(transaction, size_bytes)
            return transaction.append(prepared)

        return self._commits.submit(work, size_bytes)

    def _check_room(self, transaction: Transaction, size_bytes: int) -> None:
        if self._bytes_max is None:
            return
        held = transaction.stored_bytes()
        if held + size_bytes > self._bytes_max:
            raise LogFullError(
                f"the log in {self._directory} holds {held} bytes of at most {self._bytes_max}: {size_bytes} more do "
                "not fit until some are trimmed"
            )

    def _prepare(self, entry: Entry) -> Prepared:
        require_key(spec_of(self._specs, entry.topic, entry.partition), entry.key)
        codec, stored = self._codec.encode(entry.value)
        return Prepared(TopicPartition(entry.topic, entry.partition), entry.key, entry.value, codec, stored)

    def claim(self, name: str) -> Fence:
        """Claim `name`, durably; see `Log.claim`."""
        self._check_open()
        return self._commits.submit(lambda transaction: transaction.claim(name))

    def check(self, fence: Fence) -> None:
        """Refuse a stale fence; see `Log.check`."""
        self._check_open()
        self._commits.submit(lambda transaction: transaction.check(fence))

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], fence: Fence | None = None) -> None:
        """Record the group's next offsets, durably; see `Log.commit`."""
        for source in offsets:
            self._head(source)

        def work(transaction: Transaction) -> None:
            transaction.check(fence)
            transaction.commit_offsets(group, offsets)

        self._commits.submit(work)

    def _execute(self, units: Sequence[Unit[Transaction]]) -> None:
        """Run the units in one transaction; if that fails as a whole, each in one of its own.

        A unit refused with a LogError has written nothing by then, so the others of its group stand.
        """
        try:
            self._transact(units)
        except Exception as error:
            if len(units) > 1:
                for unit in units:
                    self._execute([unit])
                return
            cause = self._unavailable("write", error) if isinstance(error, sqlite3.Error) else error
            for unit in units:
                unit.error = cause

    def _transact(self, units: Sequence[Unit[Transaction]]) -> None:
        if self._closed:
            raise LogUnavailableError("the log is closed: open it again")
        if self._doubtful:
            self._reload()
        # Whatever happens from here to the end, be it a failing COMMIT or an interrupt after it, memory may be wrong.
        self._doubtful = True
        transaction = Transaction(self._writer, self._heads, self._clock.now_ms(), self._tombstone_ms)
        refused: dict[Unit[Transaction], LogError] = {}
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            for unit in units:
                try:
                    unit.run(transaction)
                except LogError as error:
                    refused[unit] = error
            transaction.seal()
            self._writer.execute("COMMIT")
        except BaseException:
            # A full disk makes SQLite roll back by itself.
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        self._publish(transaction)
        self._doubtful = False
        for unit in units:
            unit.error = refused.get(unit)
        self._checkpointer.wrote(sum(unit.size_bytes + schema.PAGE_BYTES for unit in units))

    def _reload(self) -> None:
        """Learn from the file what is committed, after a transaction whose end is not known."""
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        self._tails.clear()
        for source, loaded in self._load_heads().items():
            self._heads[source].follow(loaded)
        self._committed.update(self._load_commits())
        self._waiting.wake(self._heads.keys())

    def _publish(self, transaction: Transaction) -> None:
        """Let memory follow what is now durable, the records before the bounds that lead readers to them."""
        for source, records in transaction.appended.items():
            # Compacted topics are read from the file: state chunks would push out what consumers are about to read.
            if not self._heads[source].spec.compacted:
                self._tails.add(source, records)
        for source, changed in transaction.changed.items():
            self._heads[source].follow(changed)
        self._committed.update(transaction.commits)
        self._waiting.wake(transaction.appended.keys())

    # Reading.

    def read(
        self, source: TopicPartition, offset: int, max_records: int = 500, max_bytes: int = 8 << 20
    ) -> list[Record]:
        """Return records from `offset` on; see `Log.read`."""
        head = self._head(source)
        if offset < head.first:
            raise gone(source, offset, head.first)
        if offset >= head.next:
            return []
        records = self._tails.read(source, offset, max_records, max_bytes)
        if records is not None:
            return records
        with self._translated("read"):
            return self._reader.read(source, head.id, offset, max_records, max_bytes)

    def bounds(self, source: TopicPartition) -> tuple[int, int]:
        """Return the first offset without a gap and the next one to be given; see `Log.bounds`."""
        head = self._head(source)
        return head.first, head.next

    def committed(self, group: str, source: TopicPartition) -> int | None:
        """Return the group's last commit; see `Log.committed`."""
        self._head(source)
        return self._committed.get((group, source))

    def wait(self, positions: Mapping[TopicPartition, int], timeout_seconds: float) -> bool:
        """Block until there is something to read at one of the positions; see `Log.wait`."""
        for source in positions:
            self._head(source)
        ready = self._waiting.wait(positions, timeout_seconds)
        self._check_open()
        return ready

    def disk_bytes(self) -> int:
        """Return what the log takes on disk: the file and its write-ahead log."""
        paths = (self._path, self._path.with_name(f"{schema.FILE_NAME}-wal"))
        return sum(path.stat().st_size for path in paths if path.exists())

    def stored_bytes(self, source: TopicPartition) -> int:
        """Return the bytes of a partition's keys and values as stored."""
        return self._head(source).stored_bytes

    # Upkeep.

    def trim(self, source: TopicPartition, before: int) -> None:
        """Delete the records of a partition before an offset, for good; `maintain` gives their disk back.

        Works in steps as short as those of `maintain`: whoever uses a partition as a queue calls this once what it read
        is safe elsewhere. After a failure the records before `bounds(source)[0]` are gone and the others are there.

        Raises:
            LogUnavailableError: the log could not be written; call again.
        """
        head = self._head(source)
        while head.first < min(before, head.next):
            self._commits.submit(partial(retention.trim, source=source, before=before))

    def maintain(self) -> int:
        """Compact, apply retention, and give free space back; call it every second or so from a thread of its own.

        Works in small transactions between the appends. A second caller while one is at work returns at once.

        Returns:
            How many steps were done.

        Raises:
            LogUnavailableError: the log could not be written; what was due stays due.
        """
        self._check_open()
        if not self._maintaining.acquire(blocking=False):
            return 0
        try:
            with self._translated("maintain"), self._reader.connection() as reader:
                return retention.run(reader, self._heads, self._clock.now_ms(), self._commits.submit)
        finally:
            self._maintaining.release()

    def close(self) -> None:
        """Finish the commit at work, then refuse everything; a second call does nothing."""
        if self._closed:
            return
        with contextlib.suppress(LogError):
            # Queues behind whatever is being written, so nobody's commit is cut off.
            self._commits.submit(self._shut)
        self._closed = True
        self._checkpointer.close()
        self._waiting.close()
        self._reader.close()
        self._writer.close()
        self._lock.release()

    def _shut(self, _transaction: Transaction) -> None:
        self._closed = True

    # Helpers.

    def _head(self, source: TopicPartition) -> Head:
        self._check_open()
        head = self._heads.get(source)
        if head is None:
            spec_of(self._specs, source.topic, source.partition)
            raise AssertionError("every partition of the specs has a head")
        return head

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailableError("the log is closed: open it again")

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unavailable(what, error) from error

    def _unavailable(self, what: str, error: BaseException) -> LogUnavailableError:
        return LogUnavailableError(
            f"cannot {what} the log in {self._directory} ({error}): check its free space and permissions, try again"
        )

    def _load_heads(self) -> dict[TopicPartition, Head]:
        heads = {}
        rows = self._writer.execute("SELECT id, topic, partition, first, next, bytes FROM partitions").fetchall()
        for head_id, topic, partition, first, following, stored_bytes in rows:
            source = TopicPartition(topic, partition)
            spec = self._specs.get(source)
            if spec is None:
                continue
            (last,) = self._writer.execute(
                "SELECT max(id) FROM records WHERE id >= ? AND id < ?",
                (schema.row_id(head_id, 0), schema.row_id(head_id + 1, 0)),
            ).fetchone()
            last = -1 if last is None else last & schema.OFFSET_MASK
            heads[source] = Head(head_id, spec, first, following, last, stored_bytes)
        return heads

    def _load_commits(self) -> dict[tuple[str, TopicPartition], int]:
        by_id = {head.id: source for source, head in self._heads.items()}
        rows = self._writer.execute("SELECT consumers, partition, next FROM commits").fetchall()
        return {(group, by_id[number]): following for group, number, following in rows if number in by_id}


__all__ = ["EmbeddedLog"]
