-- Alerts on crash patterns that belong to no rollout, as they were written: a row for each record, the latest by offset.
-- No retention: they are few, and what was once out of the ordinary is worth looking up.

CREATE TABLE IF NOT EXISTS ${local}alerts ${on_cluster}
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
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (alert, partition, log_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
