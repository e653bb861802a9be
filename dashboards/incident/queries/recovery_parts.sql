-- How devices of the rollout had come back at the last minute that is told of, by ring and tenant.
-- param rollout String: rollout id
-- param to_ms Int64: the latest moment, event time in milliseconds since the epoch
-- param limit UInt32: how many
SELECT
    toInt64(toUnixTimestamp(minute)) * 1000 AS at_ms, part.1 AS ring, part.2 AS tenant, part.3 AS silent, part.4 AS looping,
    part.5 AS recovered
FROM
(
    SELECT minute, parts
    FROM recoveries FINAL
    WHERE rollout = {rollout:String} AND minute <= toDateTime(intDiv({to_ms:Int64}, 1000), 'UTC')
    ORDER BY minute DESC, log_offset DESC
    LIMIT 1
)
ARRAY JOIN parts AS part
ORDER BY silent + looping + recovered DESC, ring, tenant
LIMIT {limit:UInt32}
