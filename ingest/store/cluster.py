"""A lane's tables on several shards: `Distributed` tables over each shard's own.

Used by the migrator where a cluster is set. Everybody reads and writes the `Distributed` tables, which have the names
that the tables have on one server, so sink and queries are the same. The invariant: rows that replace each other, in a
ReplacingMergeTree or by `max` in an AggregatingMergeTree, land on the same shard, because FINAL and merges see but one.
"""

import re
from typing import Final

from ingest.store.interface import Engines, StoreError, quoted

# The whole of a table's key that is not the partition lies within a partition: one partition's rows share a shard.
_BY_PARTITION: Final = "partition"
SHARDING_KEYS: Final[dict[str, str]] = {
    "schema_migrations": "number",
    "sink_blocks": "cityHash64(topic, partition)",
    "crashes": _BY_PARTITION,
    "installs": _BY_PARTITION,
    "check_in_minutes": _BY_PARTITION,
    "crash_minutes": _BY_PARTITION,
    "version_crash_minutes": _BY_PARTITION,
    "install_minutes": _BY_PARTITION,
    "verdicts": _BY_PARTITION,
    "recoveries": _BY_PARTITION,
    "alerts": _BY_PARTITION,
    "killswitch": _BY_PARTITION,
    "pagings": _BY_PARTITION,
    "rollouts": _BY_PARTITION,
}
_TABLE = re.compile(r"^(?:CREATE TABLE(?: IF NOT EXISTS)?|ALTER TABLE) \$\{local\}(\w+)")


def table_of(statement: str) -> str | None:
    """Return the table that a migration's statement makes or alters, as it stands in the file; None for any other."""
    match = _TABLE.match(statement)
    return match[1] if match else None


def databases(engines: Engines) -> list[str]:
    """Return the statements that make the cluster's databases; none where there are no `Distributed` tables."""
    if not engines.local_database:
        return []
    on_cluster = engines.words()["on_cluster"]
    return [
        f"CREATE DATABASE IF NOT EXISTS {quoted(name)} {on_cluster}"
        for name in (engines.database, engines.local_database)
    ]


def distributed(engines: Engines, table: str) -> str:
    """Return the statement that makes the `Distributed` table over `table`, or makes it again after a change.

    It holds no rows of its own, since inserts go through to the shards before they are acknowledged, so replacing it
    loses nothing.

    Raises:
        StoreError: nobody has said by which key the table is sharded.
    """
    key = SHARDING_KEYS.get(table)
    if key is None:
        raise StoreError(f"by what is {table} sharded? Say so in ingest/store/cluster.py: rows that replace each other")
    words, local = engines.words(), quoted(engines.local_database)
    return (
        f"CREATE OR REPLACE TABLE {quoted(engines.database)}.{quoted(table)} {words['on_cluster']} "
        f"AS {local}.{quoted(table)} "
        f"ENGINE = Distributed('{engines.cluster}', '{engines.local_database}', '{table}', {key})"
    )
