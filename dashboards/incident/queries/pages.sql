-- What was sent to pagers about the rollout, and the answers, in order.
-- param rollout String: rollout id
-- param limit UInt32: how many
SELECT
    owner, route, channel, step, level, sequence, attempt, toUnixTimestamp64Milli(at) AS at_ms, answered, status, answer,
    headline
FROM pagings FINAL
WHERE rollout = {rollout:String}
ORDER BY at, partition, log_offset
LIMIT {limit:UInt32}
