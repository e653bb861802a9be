"""One SQLite transaction of the embedded log, and what memory will know once it is committed.

Every change (append, claim, commit, compaction, retention) is a function of a `Transaction`. It reads and changes
copies of the partition heads; `EmbeddedLog` publishes them after the COMMIT and throws them away after a failure.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ingest.log.heads import Head
from ingest.log.interface import Fence, FencedError, Record, TopicPartition
from ingest.log.schema import row_id


class Prepared(NamedTuple):
    """An entry checked and encoded in its caller's thread.

    Attributes:
        value: as the caller gave it.
        stored: as it is written with `codec`.
    """

    source: TopicPartition
    key: bytes | None
    value: bytes | None
    codec: int
    stored: bytes | None


@dataclass(slots=True)
class Transaction:
    """An open transaction.

    Attributes:
        now_ms: the clock when it began; every record in it was appended then.
        changed: the heads as they will be.
        appended: new records by partition, in order.
        commits: new committed offsets by group and partition.
    """

    connection: sqlite3.Connection
    heads: Mapping[TopicPartition, Head]
    now_ms: int
    tombstone_ms: int
    changed: dict[TopicPartition, Head] = field(default_factory=dict)
    appended: dict[TopicPartition, list[Record]] = field(default_factory=dict)
    commits: dict[tuple[str, TopicPartition], int] = field(default_factory=dict)

    def head(self, source: TopicPartition) -> Head:
        """Return the partition's head for changing."""
        head = self.changed.get(source)
        if head is None:
            head = self.changed[source] = replace(self.heads[source])
        return head

    def stored_bytes(self) -> int:
        """Return the bytes of all partitions' keys and values, as this transaction would leave them."""
        return sum(self.changed.get(source, head).stored_bytes for source, head in self.heads.items())

    def check(self, fence: Fence | None) -> None:
        """Refuse a stale fence.

        Raises:
            FencedError: the name was claimed again.
        """
        if fence is None:
            return
        row = self.connection.execute("SELECT epoch FROM fences WHERE name = ?", (fence.name,)).fetchone()
        if row is None or row[0] != fence.epoch:
            raise FencedError(
                f"{fence.name} was claimed again after epoch {fence.epoch}: stop writing, another owner lives"
            )

    def claim(self, name: str) -> Fence:
        """Make every earlier claim on `name` stale."""
        (epoch,) = self.connection.execute(
            "INSERT INTO fences VALUES(?, 1) ON CONFLICT(name) DO UPDATE SET epoch = epoch + 1 RETURNING epoch", (name,)
        ).fetchone()
        return Fence(name, epoch)

    def append(self, entries: Sequence[Prepared]) -> list[int]:
        """Write the entries and return their offsets."""
        offsets = []
        rows = []
        keyed: list[tuple[Head, bytes, int, bool]] = []
        for source, key, value, codec, stored in entries:
            head = self.head(source)
            offset = head.last = head.next
            head.next = offset + 1
            head.stored_bytes += len(key or b"") + len(stored or b"")
            number = row_id(head.id, offset)
            rows.append((number, self.now_ms, codec, key, stored))
            self.appended.setdefault(source, []).append(Record(offset, key, value, self.now_ms))
            offsets.append(offset)
            if head.spec.compacted and key is not None:
                keyed.append((head, key, number, value is None))
        self.connection.executemany("INSERT INTO records VALUES(?, ?, ?, ?, ?)", rows)
        for head, key, number, tombstone in keyed:
            self._supersede(head, key, number, tombstone)
        return offsets

    def _supersede(self, head: Head, key: bytes, number: int, tombstone: bool) -> None:
        """Doom the record that `key` had before, at once, and a tombstone for later."""
        connection = self.connection
        old = connection.execute("SELECT id FROM latest WHERE partition = ? AND key = ?", (head.id, key)).fetchone()
        if old is not None:
            connection.execute("INSERT OR REPLACE INTO doomed VALUES(?, 0)", old)
        connection.execute("INSERT OR REPLACE INTO latest VALUES(?, ?, ?)", (head.id, key, number))
        if tombstone:
            connection.execute("INSERT OR REPLACE INTO doomed VALUES(?, ?)", (number, self.now_ms + self.tombstone_ms))

    def commit_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Write a group's next offsets."""
        self.connection.executemany(
            "INSERT OR REPLACE INTO commits VALUES(?, ?, ?)",
            [(group, self.heads[source].id, offset) for source, offset in offsets.items()],
        )
        self.commits.update({(group, source): offset for source, offset in offsets.items()})

    def seal(self) -> None:
        """Write the changed heads, the last thing before the COMMIT."""
        self.connection.executemany(
            "UPDATE partitions SET first = ?, next = ?, bytes = ? WHERE id = ?",
            [(head.first, head.next, head.stored_bytes, head.id) for head in self.changed.values()],
        )
