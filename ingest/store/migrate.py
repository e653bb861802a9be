"""Numbered migrations: apply, status, checksum.

Run by the composition root before the sink starts. The invariants: a migration is applied once, in the order of its
number, and never changes afterwards (its checksum is kept); its statements may run twice, since a kill can come between
them and the entry in `schema_migrations`.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from ingest.store.cluster import databases, distributed, table_of
from ingest.store.interface import Engines, Store, StoreError

FOLDER = Path(__file__).parent / "migrations"
AGGREGATE_RETENTION_DAYS = 400
_NAME = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
_BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS ${local}schema_migrations ${on_cluster}
(number UInt32, name String, checksum String, applied_at DateTime('UTC') DEFAULT now())
ENGINE = ${replicated}ReplacingMergeTree ORDER BY number
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
"""
_ENGINES = (
    "SELECT name, engine_full FROM system.tables"
    " WHERE database = if({database:String} = '', currentDatabase(), {database:String})"
)
_APPLIED = "SELECT number, name, checksum, applied_at FROM schema_migrations FINAL ORDER BY number"


class MigrationError(StoreError):
    """The migrations and the database do not fit together; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, name, text, and the SHA-256 of that text as one server sees it, without `${local}`."""

    number: int
    name: str
    text: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Status:
    """One migration and whether it is applied, and when (UTC, as text; empty if not)."""

    migration: Migration
    applied: bool
    applied_at: str = ""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows are kept, from the time the store took them.

    Attributes:
        raw_days: crashes and installs.
        aggregate_days: minute aggregates.
    """

    raw_days: int = 30
    aggregate_days: int = AGGREGATE_RETENTION_DAYS

    def by_table(self) -> dict[str, int]:
        """Return the retention in days of every table that has one."""
        raw = dict.fromkeys(("crashes", "installs"), self.raw_days)
        minutes = ("check_in_minutes", "crash_minutes", "version_crash_minutes", "install_minutes")
        return raw | dict.fromkeys(minutes, self.aggregate_days)


def load_migrations(folder: Path = FOLDER) -> list[Migration]:
    """Return the migrations of a folder in order.

    Raises:
        MigrationError: a file is misnamed, or numbers are not 1, 2, 3 ...
    """
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _NAME.match(path.name)
        if match is None:
            raise MigrationError(f"{path.name}: name a migration like 0005_what_it_does.sql")
        text = path.read_text(encoding="utf-8")
        plain = text.replace("${local}", "")
        found.append(Migration(int(match[1]), match[2], text, hashlib.sha256(plain.encode()).hexdigest()))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        numbers = ", ".join(f"{migration.number:04d}" for migration in found)
        raise MigrationError(f"migrations must be numbered from 0001 without holes or repeats: {numbers}")
    return found


def statements_of(text: str) -> list[str]:
    """Return the statements of a migration, which end with `;` at a line's end; `--` comment lines are dropped."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return [part.strip() for part in re.split(r";\s*$", "\n".join(lines), flags=re.MULTILINE) if part.strip()]


class Migrator:
    """Brings one database up to date.

    Attributes:
        store: the database.
        engines: what the placeholders for engines stand for.
        retention: what the placeholders for retention stand for; a later change is applied to the tables as well.
    """

    def __init__(
        self,
        store: Store,
        engines: Engines | None = None,
        retention: Retention | None = None,
        migrations: Sequence[Migration] | None = None,
    ) -> None:
        self.store = store
        self.retention = retention or Retention()
        self._migrations = load_migrations() if migrations is None else list(migrations)
        self._engines = engines or Engines()
        self._words = self._engines.words() | {
            "raw_retention_days": str(self.retention.raw_days),
            "aggregate_retention_days": str(self.retention.aggregate_days),
        }

    def status(self) -> list[Status]:
        """Return every known migration and whether it is applied.

        Raises:
            MigrationError: an applied one was edited, or the database is newer than this Cordon.
        """
        for statement in databases(self._engines):
            self.store.execute(statement)
        self._run(_BOOKKEEPING.strip())
        rows = self.store.query(_APPLIED)
        applied = {int(row[0]): row for row in rows.rows}
        for number in sorted(applied.keys() - {migration.number for migration in self._migrations}):
            raise MigrationError(
                f"the database has migration {number:04d}_{applied[number][1]}, which this Cordon does not know: "
                "run the newer Cordon that applied it"
            )
        return [self._status(migration, applied.get(migration.number)) for migration in self._migrations]

    def _status(self, migration: Migration, row: list[str] | None) -> Status:
        if row is None:
            return Status(migration, applied=False)
        if row[2] != migration.checksum:
            raise MigrationError(
                f"migration {migration.number:04d}_{migration.name} was edited after it was applied on {row[3]}: "
                "put its text back and write a new migration"
            )
        return Status(migration, applied=True, applied_at=row[3])

    def apply(self) -> list[Migration]:
        """Apply what is missing, bring retention in line with the settings, and return what was applied.

        Raises:
            MigrationError: as `status`.
            StoreError: a statement failed; what went before it stays, and applying again goes on from there.
        """
        missing = [status.migration for status in self.status() if not status.applied]
        for migration in missing:
            for statement in statements_of(migration.text):
                self._run(statement)
            self.store.insert(
                "schema_migrations",
                {"number": [migration.number], "name": [migration.name], "checksum": [migration.checksum]},
            )
        self._apply_retention()
        return missing

    def _run(self, statement: str) -> None:
        """Run one statement of a migration, and have the `Distributed` table over its table follow."""
        self.store.execute(Template(statement).substitute(self._words))
        table = table_of(statement)
        if table is not None and self._engines.local_database:
            self.store.execute(distributed(self._engines, table))

    def _apply_retention(self) -> None:
        local = self._engines.local_database
        found = self.store.query(_ENGINES, {"database": local})
        for table, engine in found.rows:
            days = self.retention.by_table().get(table)
            if days is not None and f"toIntervalDay({days})" not in engine:
                self.store.execute(
                    f"ALTER TABLE {self._words['local']}{table} {self._words['on_cluster']} "
                    f"MODIFY TTL stored_at + INTERVAL {days} DAY"
                )
