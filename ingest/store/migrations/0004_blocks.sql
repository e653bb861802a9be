-- The sink's plan: the offsets of the latest block of each partition, written before the block itself. After a kill the
-- block may be in, or not, or half: it is written again with the same offsets, which changes nothing that is there.

CREATE TABLE IF NOT EXISTS ${local}sink_blocks ${on_cluster}
(
    topic String,
    partition UInt32,
    from_offset UInt64,
    to_offset UInt64 COMMENT 'the offset after the last one of the block'
)
ENGINE = ${replicated}ReplacingMergeTree(to_offset)
ORDER BY (topic, partition)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
