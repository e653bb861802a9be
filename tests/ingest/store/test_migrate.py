"""Migrations: once, in order, never edited."""

from dataclasses import replace
from pathlib import Path

import pytest

from ingest.store.chdb import ChdbStore
from ingest.store.interface import Engines, MemoryStore, StoreError, database_of
from ingest.store.migrate import MigrationError, Migrator, Retention, load_migrations, statements_of


def test_a_second_run_applies_nothing(store: ChdbStore) -> None:
    assert Migrator(store).apply() == []
    assert all(status.applied and status.applied_at for status in Migrator(store).status())


def test_an_empty_database_gets_all_in_order(engine_path: Path, engine: ChdbStore) -> None:
    fresh = ChdbStore(engine_path, "fresh")
    assert [status.applied for status in Migrator(fresh).status()] == [False] * len(load_migrations())
    assert [migration.number for migration in Migrator(fresh).apply()] == list(range(1, len(load_migrations()) + 1))
    fresh.close()


def test_statements_may_run_twice(store: ChdbStore) -> None:
    """A kill between the statements and their entry means that they run again."""
    store.execute("TRUNCATE TABLE schema_migrations")
    assert len(Migrator(store).apply()) == len(load_migrations())


def test_an_edited_migration_is_an_error(store: ChdbStore) -> None:
    edited = load_migrations()
    edited[1] = replace(edited[1], checksum="0" * 64)
    with pytest.raises(MigrationError, match="0002_minutes was edited after it was applied"):
        Migrator(store, migrations=edited).apply()


def test_a_database_from_a_newer_cordon_is_refused(store: ChdbStore) -> None:
    with pytest.raises(MigrationError, match="does not know"):
        Migrator(store, migrations=load_migrations()[:-1]).status()


@pytest.mark.parametrize("names", [["0002_late.sql"], ["0001_a.sql", "0003_b.sql"], ["1_short.sql"]])
def test_misnumbered_files_are_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(MigrationError):
        load_migrations(tmp_path)


def test_raw_and_minute_tables_have_their_retention(store: ChdbStore) -> None:
    def engine_of(table: str) -> str:
        found = store.query(
            "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = {t:String}",
            {"t": table},
        )
        return str(found.rows[0][0])

    for table, days in Retention().by_table().items():
        assert f"TTL stored_at + toIntervalDay({days})" in engine_of(table)
    Migrator(store, retention=Retention(raw_days=7)).apply()
    assert "toIntervalDay(7)" in engine_of("crashes")
    assert "toIntervalDay(400)" in engine_of("crash_minutes")


def test_expired_rows_go_when_parts_are_merged(store: ChdbStore) -> None:
    store.insert("check_in_minutes", {"minute": [60], "stored_at": [1_500_000_000], "check_ins": [5], "block": [1]})
    store.insert("check_in_minutes", {"minute": [60], "check_ins": [7], "block": [2]})
    store.execute("OPTIMIZE TABLE check_in_minutes FINAL")
    assert store.query("SELECT sum(check_ins) FROM check_in_minutes").rows == [[7]]


def test_a_cluster_gets_replicated_engines_from_the_same_files() -> None:
    twin = MemoryStore()
    Migrator(twin, Engines(replicated=True, cluster="main")).apply()
    tables = [statement for statement in twin.statements if statement.startswith("CREATE TABLE")]
    assert tables
    assert all("ENGINE = Replicated" in table and "ON CLUSTER `main`" in table for table in tables)
    with pytest.raises(StoreError, match="cluster name"):
        Engines(cluster="x` SYNC").words()


def test_comments_and_inner_semicolons_are_not_statements() -> None:
    assert statements_of("-- a; b\nSELECT ';' AS x;\n\nSELECT 2;\n") == ["SELECT ';' AS x", "SELECT 2"]


@pytest.mark.parametrize(("lane", "name"), [("live", "cordon"), ("replay-1", "cordon_replay_1")])
def test_each_lane_has_a_database(lane: str, name: str) -> None:
    assert database_of(lane) == name
