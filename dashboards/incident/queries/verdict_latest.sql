-- The rollout's last verdict up to a moment: the record as it lay in the log.
-- param rollout String: rollout id
-- param to_ms Int64: the moment, event time in milliseconds since the epoch
SELECT json
FROM verdicts FINAL
WHERE rollout = {rollout:String} AND at <= fromUnixTimestamp64Milli({to_ms:Int64})
ORDER BY at DESC, log_offset DESC
LIMIT 1
