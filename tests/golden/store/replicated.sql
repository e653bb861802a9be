CREATE TABLE IF NOT EXISTS schema_migrations ON CLUSTER `main`
(number UInt32, name String, checksum String, applied_at DateTime('UTC') DEFAULT now())
ENGINE = ReplicatedReplacingMergeTree ORDER BY number
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS crashes ON CLUSTER `main`
(
    kind LowCardinality(String) COMMENT 'bsod or boot_loop',
    device String COMMENT 'pseudonym, 16 hexadecimal digits',
    seq UInt64,
    at DateTime64(3, 'UTC') COMMENT 'when it happened, by the device''s clock',
    received_at DateTime64(3, 'UTC') COMMENT 'by the gateway''s clock',
    boot_id String,
    boot_at DateTime64(3, 'UTC'),
    boots UInt32 COMMENT 'failed boots in a row; 1 for a bsod',
    tenant LowCardinality(String),
    os_build LowCardinality(String),
    os_family LowCardinality(String) DEFAULT splitByChar('.', os_build)[1],
    form_factor LowCardinality(String),
    model LowCardinality(String),
    ring LowCardinality(String),
    site LowCardinality(String),
    bugcheck UInt32 COMMENT 'as read; 0 where unknown',
    parameters Array(String),
    module LowCardinality(String) COMMENT 'the module the endpoint blames',
    frames Array(String) COMMENT 'module+offset',
    signature_module LowCardinality(String) COMMENT 'the driver blamed by the signature rules',
    signature LowCardinality(String) COMMENT 'module and bugcheck, version-free',
    signature_frames String,
    deliberate UInt8 COMMENT 'a person asked for this crash',
    versions Array(Tuple(vendor String, product String, version String, activated_at Nullable(DateTime64(3, 'UTC'))))
        COMMENT 'updates read from disk',
    gateway LowCardinality(String),
    partition UInt32,
    log_offset UInt64,
    log_index UInt32,
    block UInt64,
    stored_at DateTime('UTC') DEFAULT now()
)
ENGINE = ReplicatedReplacingMergeTree
PARTITION BY toYYYYMM(stored_at)
ORDER BY (at, partition, log_offset, log_index)
TTL stored_at + INTERVAL 30 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS installs ON CLUSTER `main`
(
    kind LowCardinality(String) COMMENT 'offered or installed',
    device String,
    seq UInt64,
    at DateTime64(3, 'UTC'),
    received_at DateTime64(3, 'UTC'),
    boot_id String,
    boot_at DateTime64(3, 'UTC'),
    tenant LowCardinality(String),
    os_build LowCardinality(String),
    os_family LowCardinality(String) DEFAULT splitByChar('.', os_build)[1],
    form_factor LowCardinality(String),
    model LowCardinality(String),
    ring LowCardinality(String),
    site LowCardinality(String),
    vendor LowCardinality(String),
    product LowCardinality(String),
    update_kind LowCardinality(String),
    version LowCardinality(String),
    gateway LowCardinality(String),
    partition UInt32,
    log_offset UInt64,
    log_index UInt32,
    block UInt64,
    stored_at DateTime('UTC') DEFAULT now()
)
ENGINE = ReplicatedReplacingMergeTree
PARTITION BY toYYYYMM(stored_at)
ORDER BY (at, partition, log_offset, log_index)
TTL stored_at + INTERVAL 30 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS check_in_minutes ON CLUSTER `main`
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
ENGINE = ReplicatedAggregatingMergeTree
ORDER BY (minute, tenant, ring, os_build, partition, block)
TTL stored_at + INTERVAL 400 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS crash_minutes ON CLUSTER `main`
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
ENGINE = ReplicatedAggregatingMergeTree
ORDER BY (minute, module, signature, ring, os_build, tenant, partition, block)
TTL stored_at + INTERVAL 400 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS crash_minutes_mv ON CLUSTER `main` TO crash_minutes AS
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
FROM crashes AS c
GROUP BY minute, module, signature, ring, os_build, tenant, partition, block;

CREATE TABLE IF NOT EXISTS version_crash_minutes ON CLUSTER `main`
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
ENGINE = ReplicatedAggregatingMergeTree
ORDER BY (minute, product, vendor, version, signature, ring, os_build, tenant, partition, block)
TTL stored_at + INTERVAL 400 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS version_crash_minutes_mv ON CLUSTER `main` TO version_crash_minutes AS
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
FROM crashes AS c
ARRAY JOIN arrayDistinct(arrayMap(v -> (v.vendor, v.product, v.version), versions)) AS update
GROUP BY minute, vendor, product, version, signature, ring, os_build, tenant, partition, block;

CREATE TABLE IF NOT EXISTS install_minutes ON CLUSTER `main`
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
ENGINE = ReplicatedAggregatingMergeTree
ORDER BY (minute, kind, product, vendor, version, ring, os_build, tenant, partition, block)
TTL stored_at + INTERVAL 400 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS install_minutes_mv ON CLUSTER `main` TO install_minutes AS
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
FROM installs AS i
GROUP BY minute, kind, vendor, product, version, ring, os_build, tenant, partition, block;

CREATE TABLE IF NOT EXISTS verdicts ON CLUSTER `main`
(
    rollout String,
    vendor LowCardinality(String),
    product LowCardinality(String),
    version LowCardinality(String),
    at DateTime64(3, 'UTC') COMMENT 'event time the verdict holds for',
    verdict LowCardinality(String),
    decision LowCardinality(String),
    reason LowCardinality(String),
    sentence String,
    log10_evidence Float64,
    log10_evidence_max Float64,
    log10_needed_to_hold Float64,
    log10_needed_to_kill Float64,
    tolerated_ratio Float64,
    crashes_exposed UInt64,
    crashes_control UInt64,
    exposed UInt64,
    at_risk_exposed UInt64,
    at_risk_control UInt64,
    rate_ratio Nullable(Float64),
    rate_ratio_low Nullable(Float64),
    rate_ratio_high Nullable(Float64),
    tenants UInt64,
    methods Array(Tuple(name String, log10_evidence Float64, weight Float64, events_exposed UInt64, events_control UInt64)),
    policy String,
    dry_run UInt8,
    json String COMMENT 'the record as it lay in the log',
    partition UInt32,
    log_offset UInt64,
    logged_at DateTime64(3, 'UTC'),
    stored_at DateTime('UTC') DEFAULT now()
)
ENGINE = ReplicatedReplacingMergeTree
ORDER BY (rollout, at, partition, log_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS killswitch ON CLUSTER `main`
(
    rollout String,
    number UInt64,
    vendor LowCardinality(String),
    product LowCardinality(String),
    version LowCardinality(String),
    state LowCardinality(String),
    previous_state LowCardinality(String),
    decision LowCardinality(String),
    cause LowCardinality(String),
    reason String,
    sentence String,
    name String COMMENT 'who, when a person decided',
    watermark DateTime64(3, 'UTC'),
    decided_at DateTime64(3, 'UTC'),
    lane LowCardinality(String),
    dry_run UInt8,
    command_id String,
    policy String,
    log10_evidence Nullable(Float64),
    key_ids Array(String),
    envelope String COMMENT 'the signed DSSE envelope as it lay in the log',
    partition UInt32,
    log_offset UInt64,
    logged_at DateTime64(3, 'UTC'),
    stored_at DateTime('UTC') DEFAULT now()
)
ENGINE = ReplicatedReplacingMergeTree
ORDER BY (rollout, number, partition, log_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS rollouts ON CLUSTER `main`
(
    rollout String,
    vendor LowCardinality(String),
    product LowCardinality(String),
    update_kind LowCardinality(String),
    version LowCardinality(String),
    origin DateTime64(3, 'UTC'),
    bound LowCardinality(String),
    rings Array(Tuple(name String, starts_at Nullable(DateTime64(3, 'UTC')), over_seconds Float64, share Float64)),
    pushed_devices UInt64,
    declared_by String,
    discovered_by String,
    closed UInt8,
    json String,
    partition UInt32,
    log_offset UInt64,
    logged_at DateTime64(3, 'UTC'),
    stored_at DateTime('UTC') DEFAULT now()
)
ENGINE = ReplicatedReplacingMergeTree
ORDER BY (rollout, partition, log_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS sink_blocks ON CLUSTER `main`
(
    topic String,
    partition UInt32,
    from_offset UInt64,
    to_offset UInt64 COMMENT 'the offset after the last one of the block'
)
ENGINE = ReplicatedReplacingMergeTree(to_offset)
ORDER BY (topic, partition)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS alerts ON CLUSTER `main`
(
    alert String,
    at DateTime64(3, 'UTC') COMMENT 'event time it was written for',
    state LowCardinality(String) COMMENT 'open or ended',
    pattern LowCardinality(String) COMMENT 'the signature, or the name that near-duplicates are read under',
    signatures Array(String),
    joined String COMMENT 'why they are read as one',
    places Array(Tuple(os_build String, model String, crashes UInt64, devices UInt64, expected Float64,
        log10_evidence Float64, log10_needed Float64)) COMMENT 'both names empty: over all machines',
    opened DateTime64(3, 'UTC'),
    last DateTime64(3, 'UTC') COMMENT 'end of the last hour beyond the usual',
    crashes UInt64,
    devices_most UInt64 COMMENT 'in an hour',
    tenants_most UInt64 COMMENT 'in an hour',
    expected Float64 COMMENT 'crashes an hour when it was found',
    log10_evidence Float64,
    log10_needed Float64,
    tests UInt64 COMMENT 'tests of patterns and hours by then',
    times UInt32 COMMENT 'how often it was opened',
    ended LowCardinality(String),
    sentence String,
    json String COMMENT 'the record as it lay in the log',
    partition UInt32,
    log_offset UInt64,
    logged_at DateTime64(3, 'UTC'),
    stored_at DateTime('UTC') DEFAULT now()
)
ENGINE = ReplicatedReplacingMergeTree
ORDER BY (alert, partition, log_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS pagings ON CLUSTER `main`
(
    rollout String,
    owner LowCardinality(String) COMMENT 'whom the registry names, or default',
    route LowCardinality(String),
    channel LowCardinality(String),
    key String COMMENT 'the dedup key as the channel saw it',
    step LowCardinality(String) COMMENT 'trigger, update, acknowledge, resolve or change',
    level LowCardinality(String),
    sequence UInt64,
    attempt UInt64,
    at DateTime64(3, 'UTC'),
    seconds Float64,
    answered LowCardinality(String) COMMENT 'delivered, retry or refused',
    status UInt64 COMMENT 'of HTTP; 0 where there was none',
    answer String,
    headline String,
    json String COMMENT 'the record as it lay in the log',
    partition UInt32,
    log_offset UInt64,
    logged_at DateTime64(3, 'UTC'),
    stored_at DateTime('UTC') DEFAULT now()
)
ENGINE = ReplicatedReplacingMergeTree
ORDER BY (rollout, partition, log_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS recoveries ON CLUSTER `main`
(
    rollout String,
    minute DateTime('UTC') COMMENT 'of event time',
    vendor LowCardinality(String),
    product LowCardinality(String),
    version LowCardinality(String),
    silent UInt64 COMMENT 'devices not heard from when they should have been',
    looping UInt64 COMMENT 'crashed, and not quiet since',
    recovered UInt64 COMMENT 'crashed, heard from since, and quiet',
    parts Array(Tuple(ring String, tenant String, silent UInt64, looping UInt64, recovered UInt64))
        COMMENT 'by ring and tenant (# and a hash; empty for a ring''s smaller tenants together)',
    partition UInt32,
    log_offset UInt64,
    logged_at DateTime64(3, 'UTC'),
    stored_at DateTime('UTC') DEFAULT now()
)
ENGINE = ReplicatedReplacingMergeTree(log_offset)
ORDER BY (rollout, minute, partition)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

