"""Tables on a cluster: the SQL is the reviewed one and parses, and rows that replace each other share a shard."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from ingest.events import BootLoop, Bsod
from ingest.log.memory import MemoryLog
from ingest.store.chdb import ChdbStore
from ingest.store.cluster import SHARDING_KEYS, distributed, table_of
from ingest.store.interface import Engines, MemoryStore, Rows, StoreError
from ingest.store.migrate import Migrator, Retention, load_migrations, statements_of
from ingest.store.native import NativeStore
from ingest.store.queries import named_queries
from ingest.store.server import Server
from ingest.topics import Topics
from support.clickhouse.cluster import EveryServer, cluster
from support.store_fleet import counted, recount
from support.store_golden import CLUSTER, ENGINES, FOLDER, rendered, statements

# The checksums of the first four migrations as they were applied before they had a placeholder for shards.
CHECKSUMS = {
    1: "7ba39880f1cba8cf06053227acacd9d15075aec7cb118ca32a5ba730201642e8",
    2: "3a7b014be6552f930fb10610f9732a01a74de1416780afb934b7e5b59ac22e9d",
    3: "4b76cacaae8be224f299462bc9122470621edca792e262821ffb7cf96c0b718e",
    4: "090e800fd84367df74a7d9b0e9ef0889c2623406d2b3c7f28ca5896d3a8a41f6",
}
VALUES = {
    "product": "Content", "from": "2024-07-19 00:00:00", "to": "2024-07-20 00:00:00", "rollout": "r-1", "limit": "10",
    "vendor": "CrowdStrike",
    "module": "",
    "since": "2024-07-05 00:00:00",
    "before": "2024-07-20 02:00:00",
    "young_from": "2024-07-05 00:00:00",
    "parts": "1",
    "part": "0",
}  # fmt: skip


# The SQL.


@pytest.mark.parametrize("name", ENGINES)
def test_the_statements_are_those_that_were_reviewed(name: str) -> None:
    """To accept a change: PYTHONPATH=.:tests python tests/support/store_golden.py, and read the difference."""
    assert rendered(ENGINES[name]) == (FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def test_stores_that_were_made_before_there_were_clusters_stay_valid() -> None:
    found = {migration.number: migration.checksum for migration in load_migrations() if migration.number in CHECKSUMS}
    assert found == CHECKSUMS


@pytest.mark.parametrize("name", ENGINES)
def test_clickhouse_parses_every_statement(name: str, engine: ChdbStore) -> None:
    """ClickHouse's own parser reads what this process cannot run; single-server statements are run by other tests."""
    made, words = statements(ENGINES[name]), ENGINES[name].words()
    made.append(f"ALTER TABLE {words['local']}crashes {words['on_cluster']} MODIFY TTL stored_at + INTERVAL 7 DAY")
    for statement in made:
        assert engine.query(f"EXPLAIN AST {statement}").rows
    with pytest.raises(StoreError, match="Syntax error"):
        engine.query(f"EXPLAIN AST {made[0].replace('CREATE', 'CREATE SOME')}")


def test_nothing_of_a_cluster_is_left_to_one_server() -> None:
    """A statement without ON CLUSTER, or a table without its database, would exist on one server alone."""
    for statement in statements(CLUSTER):
        assert "ON CLUSTER `main`" in statement, statement
        if not statement.startswith("CREATE DATABASE"):
            made = re.match(r"CREATE (?:OR REPLACE )?(?:TABLE|MATERIALIZED VIEW)(?: IF NOT EXISTS)? (\S+)", statement)
            assert made is not None
            assert made[1].startswith(("`cordon_local`.", "`cordon`.")), statement
        if "VIEW" in statement:
            named = re.findall(r"\b(?:FROM|TO) (\S+)", statement)
            assert len(named) == 2
            assert all(name.startswith("`cordon_local`.") for name in named), statement
    engines = [statement for statement in statements(CLUSTER) if statement.startswith("CREATE TABLE")]
    assert engines
    assert all("ENGINE = Replicated" in statement for statement in engines)


def test_every_table_has_a_distributed_one_and_is_sharded_by_its_own_key(store: ChdbStore) -> None:
    """Rows replace each other by their sorting key: what shards them must be part of it."""
    tables = {table_of(part) for migration in load_migrations() for part in statements_of(migration.text)} - {None}
    assert tables | {"schema_migrations"} == SHARDING_KEYS.keys()
    keys = {
        table: {column.strip() for column in key.split(",")}
        for table, key in store.query(
            "SELECT name, sorting_key FROM system.tables"
            " WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
        ).rows
    }
    for table, key in SHARDING_KEYS.items():
        assert set(re.findall(r"\b[a-z_]+\b(?!\()", key)) <= keys[table], table
    with pytest.raises(StoreError, match="sharded"):
        distributed(CLUSTER, "a_new_table")


def test_a_table_that_is_altered_later_takes_its_distributed_one_along() -> None:
    assert table_of("ALTER TABLE ${local}crashes ${on_cluster} ADD COLUMN x UInt8") == "crashes"
    assert table_of("CREATE MATERIALIZED VIEW IF NOT EXISTS ${local}crash_minutes_mv ${on_cluster}") is None


def test_retention_is_changed_on_each_shards_own_tables() -> None:
    twin = MemoryStore()
    asked = "SELECT name, engine_full FROM system.tables"
    twin.query = lambda sql, parameters=None: Rows(  # type: ignore[method-assign]  # The one answer this test needs.
        ["name", "engine_full"], [["crashes", "TTL stored_at + toIntervalDay(30)"]] if sql.startswith(asked) else []
    )
    Migrator(twin, CLUSTER, Retention(raw_days=7)).apply()
    assert (
        "ALTER TABLE `cordon_local`.crashes ON CLUSTER `main` MODIFY TTL stored_at + INTERVAL 7 DAY" in twin.statements
    )


@pytest.mark.parametrize("name", ["x` SYNC", "a b", "x'"])
def test_a_clusters_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(StoreError, match="cluster name"):
        Migrator(MemoryStore(), Engines(cluster=name))


def test_a_cluster_that_cannot_be_reached_is_an_error_of_the_first_statement() -> None:
    """The database is made on every server of the cluster, so a server that knows no such cluster says so."""
    with pytest.raises(StoreError, match="away"):
        NativeStore(Server("127.0.0.1", 1, connect_seconds=1), "cordon", "main").query("SELECT 1")


# Distributed tables for real.


@pytest.fixture(scope="module")
def one_shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EveryServer]:
    with cluster(tmp_path_factory.mktemp("one"), 1) as servers:
        yield servers


@pytest.fixture(scope="module")
def two_shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EveryServer]:
    with cluster(tmp_path_factory.mktemp("two"), 2) as servers:
        yield servers


def test_sink_and_queries_are_the_same_through_distributed_tables(
    one_shard: EveryServer, store: ChdbStore, log: MemoryLog, topics: Topics, make_sink: Any, make_fleet: Any
) -> None:
    assert len(Migrator(one_shard, CLUSTER).apply()) == len(load_migrations())
    assert Migrator(one_shard, CLUSTER).apply() == []
    fleet = make_fleet(31)
    for _ in range(2):
        log.append(fleet.entries(topics, batches=15, size=20))
        make_sink(one_shard).drain()
    # The last blocks are in doubt to a sink whose commits were lost: it writes them again.
    log.commit("store", dict.fromkeys(make_sink(one_shard)._decode, 0))
    make_sink(one_shard)
    make_sink(store).drain()
    assert counted(one_shard) == counted(store) == recount(fleet.made)
    for name, query in named_queries().items():
        given = {parameter.name: VALUES[parameter.name] for parameter in query.parameters}
        assert one_shard.query(query.sql, given) == store.query(query.sql, given), name
    assert one_shard.coordinator.query("SELECT count() FROM `cordon_local`.crashes").rows == [[0]]


def test_rows_that_replace_each_other_are_on_one_shard(
    two_shards: EveryServer, log: MemoryLog, topics: Topics, make_sink: Any, make_fleet: Any
) -> None:
    """Every block goes in twice, through ClickHouse's own Distributed engine; each shard alone then counts right."""
    for statement in statements(CLUSTER):
        two_shards.execute(statement)
    fleet = make_fleet(32)
    log.append(fleet.entries(topics, batches=40, size=25))
    twin = MemoryStore()
    make_sink(twin).drain()
    for _ in range(2):
        for table, columns in twin.blocks:
            two_shards.insert(table, columns)
    shards = two_shards.shards
    for shard in shards:
        shard.execute("USE cordon_local")
    total: dict[str, Counter[Any]] = {}
    for shard in shards:
        for name, counts in counted(shard).items():
            assert counts, f"{name} has nothing on one of the shards: the test proves nothing"
            total.setdefault(name, Counter()).update(counts)
    assert {name: dict(counts) for name, counts in total.items()} == recount(fleet.made)
    crashes = [shard.query("SELECT count(), uniqExact(partition) FROM crashes FINAL").rows[0] for shard in shards]
    assert sum(count for count, _ in crashes) == sum(isinstance(report, Bsod | BootLoop) for report in fleet.made)
    assert sum(partitions for _, partitions in crashes) == topics.device_partitions
    plans = [shard.query("SELECT topic, partition FROM sink_blocks FINAL").rows for shard in shards]
    assert len({tuple(row) for rows in plans for row in rows}) == sum(map(len, plans))


def test_an_insert_is_acknowledged_when_its_shard_has_it(one_shard: EveryServer) -> None:
    """What the shard cannot take is refused at once, rather than kept on the coordinator for later."""
    Migrator(one_shard, CLUSTER).apply()
    shard = one_shard.shards[0]
    row: dict[str, list[Any]] = {"rollout": ["r"], "number": [1], "partition": [0], "log_offset": [1]}
    one_shard.insert("killswitch", row)
    assert shard.query("SELECT count() FROM cordon_local.killswitch").rows == [[1]]
    shard.execute("RENAME TABLE cordon_local.killswitch TO cordon_local.away")
    with pytest.raises(StoreError):
        one_shard.insert("killswitch", row)
    shard.execute("RENAME TABLE cordon_local.away TO cordon_local.killswitch")
    one_shard.insert("killswitch", row)
    assert shard.query("SELECT count() FROM cordon_local.killswitch").rows == [[2]]
