-- What was decided, as it was said. The log compacts verdicts and rollouts; the store keeps each one it has seen.
-- No retention: this is the audit trail, and it is small.

CREATE TABLE IF NOT EXISTS ${local}verdicts ${on_cluster}
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
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (rollout, at, partition, log_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS ${local}killswitch ${on_cluster}
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
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (rollout, number, partition, log_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS ${local}rollouts ${on_cluster}
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
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (rollout, partition, log_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
