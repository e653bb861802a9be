-- How devices of a rollout come back, as the last verdict of each minute said it. A later word of a minute replaces the
-- one before as a whole, so rows of one minute always add up. No retention: small, and asked for long after.

CREATE TABLE IF NOT EXISTS ${local}recoveries ${on_cluster}
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
ENGINE = ${replicated}ReplacingMergeTree(log_offset)
ORDER BY (rollout, minute, partition)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
