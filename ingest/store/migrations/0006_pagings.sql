-- What was sent to vendors' pagers, when, and the answer: a row for each attempt. The log keeps them for weeks only.
-- No retention: they are few, and who was told what and when is asked long after.

CREATE TABLE IF NOT EXISTS ${local}pagings ${on_cluster}
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
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (rollout, partition, log_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
