-- Minute aggregates. Each row is what one block of the sink says of one minute and one set of words: its key holds the
-- block, and a block that is written again says the same, so `max` keeps it and nothing is counted twice. Sum over rows
-- read with FINAL (or with the setting final = 1, as the read-only endpoint has it).

CREATE TABLE IF NOT EXISTS ${local}check_in_minutes ${on_cluster}
(
    minute DateTime('UTC'),
    tenant LowCardinality(String),
    ring LowCardinality(String),
    os_build LowCardinality(String),
    partition UInt32,
    block UInt64,
    check_ins SimpleAggregateFunction(max, UInt64),
    stored_at SimpleAggregateFunction(max, DateTime('UTC')) DEFAULT now()
)
ENGINE = ${replicated}AggregatingMergeTree
ORDER BY (minute, tenant, ring, os_build, partition, block)
TTL stored_at + INTERVAL ${aggregate_retention_days} DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS ${local}crash_minutes ${on_cluster}
(
    minute DateTime('UTC'),
    module LowCardinality(String) COMMENT 'the driver blamed by the signature rules',
    signature LowCardinality(String),
    ring LowCardinality(String),
    os_build LowCardinality(String),
    tenant LowCardinality(String),
    partition UInt32,
    block UInt64,
    crashes SimpleAggregateFunction(max, UInt64),
    boot_loops SimpleAggregateFunction(max, UInt64),
    devices AggregateFunction(uniq, String),
    stored_at SimpleAggregateFunction(max, DateTime('UTC'))
)
ENGINE = ${replicated}AggregatingMergeTree
ORDER BY (minute, module, signature, ring, os_build, tenant, partition, block)
TTL stored_at + INTERVAL ${aggregate_retention_days} DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS ${local}crash_minutes_mv ${on_cluster} TO ${local}crash_minutes AS
SELECT
    toStartOfMinute(at) AS minute,
    signature_module AS module,
    signature,
    ring,
    os_build,
    tenant,
    partition,
    block,
    count() AS crashes,
    countIf(kind = 'boot_loop') AS boot_loops,
    uniqState(device) AS devices,
    max(c.stored_at) AS stored_at
FROM ${local}crashes AS c
GROUP BY minute, module, signature, ring, os_build, tenant, partition, block;

CREATE TABLE IF NOT EXISTS ${local}version_crash_minutes ${on_cluster}
(
    minute DateTime('UTC'),
    vendor LowCardinality(String),
    product LowCardinality(String),
    version LowCardinality(String),
    signature LowCardinality(String),
    ring LowCardinality(String),
    os_build LowCardinality(String),
    tenant LowCardinality(String),
    partition UInt32,
    block UInt64,
    crashes SimpleAggregateFunction(max, UInt64),
    boot_loops SimpleAggregateFunction(max, UInt64),
    devices AggregateFunction(uniq, String),
    stored_at SimpleAggregateFunction(max, DateTime('UTC'))
)
ENGINE = ${replicated}AggregatingMergeTree
ORDER BY (minute, product, vendor, version, signature, ring, os_build, tenant, partition, block)
TTL stored_at + INTERVAL ${aggregate_retention_days} DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS ${local}version_crash_minutes_mv ${on_cluster} TO ${local}version_crash_minutes AS
SELECT
    toStartOfMinute(at) AS minute,
    update.1 AS vendor,
    update.2 AS product,
    update.3 AS version,
    signature,
    ring,
    os_build,
    tenant,
    partition,
    block,
    count() AS crashes,
    countIf(kind = 'boot_loop') AS boot_loops,
    uniqState(device) AS devices,
    max(c.stored_at) AS stored_at
FROM ${local}crashes AS c
ARRAY JOIN arrayDistinct(arrayMap(v -> (v.vendor, v.product, v.version), versions)) AS update
GROUP BY minute, vendor, product, version, signature, ring, os_build, tenant, partition, block;

CREATE TABLE IF NOT EXISTS ${local}install_minutes ${on_cluster}
(
    minute DateTime('UTC'),
    kind LowCardinality(String),
    vendor LowCardinality(String),
    product LowCardinality(String),
    version LowCardinality(String),
    ring LowCardinality(String),
    os_build LowCardinality(String),
    tenant LowCardinality(String),
    partition UInt32,
    block UInt64,
    installs SimpleAggregateFunction(max, UInt64),
    devices AggregateFunction(uniq, String),
    stored_at SimpleAggregateFunction(max, DateTime('UTC'))
)
ENGINE = ${replicated}AggregatingMergeTree
ORDER BY (minute, kind, product, vendor, version, ring, os_build, tenant, partition, block)
TTL stored_at + INTERVAL ${aggregate_retention_days} DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS ${local}install_minutes_mv ${on_cluster} TO ${local}install_minutes AS
SELECT
    toStartOfMinute(at) AS minute,
    kind,
    vendor,
    product,
    version,
    ring,
    os_build,
    tenant,
    partition,
    block,
    count() AS installs,
    uniqState(device) AS devices,
    max(i.stored_at) AS stored_at
FROM ${local}installs AS i
GROUP BY minute, kind, vendor, product, version, ring, os_build, tenant, partition, block;
