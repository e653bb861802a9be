-- Raw reports. A row is named by where it lies in the log (partition, log_offset, log_index): a record that is delivered
-- again replaces itself. `block` is the first offset of the sink's block, which is the same however often it is written.
-- `stored_at` is the store's own clock: retention counts from it, since a replay's reports carry times of long ago.

CREATE TABLE IF NOT EXISTS ${local}crashes ${on_cluster}
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
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMM(stored_at)
ORDER BY (at, partition, log_offset, log_index)
TTL stored_at + INTERVAL ${raw_retention_days} DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS ${local}installs ${on_cluster}
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
ENGINE = ${replicated}ReplacingMergeTree
PARTITION BY toYYYYMM(stored_at)
ORDER BY (at, partition, log_offset, log_index)
TTL stored_at + INTERVAL ${raw_retention_days} DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
