-- How devices of the rollout came back, the last minute of each step.
-- param rollout String: rollout id
-- param from_ms Int64: first moment, event time in milliseconds since the epoch
-- param to_ms Int64: last moment
-- param step_ms Int64: length of a step
SELECT toInt64(toUnixTimestamp(minute)) * 1000 AS at_ms, silent, looping, recovered
FROM recoveries FINAL
WHERE rollout = {rollout:String}
    AND minute BETWEEN toDateTime(intDiv({from_ms:Int64}, 1000), 'UTC') AND toDateTime(intDiv({to_ms:Int64}, 1000), 'UTC')
ORDER BY minute DESC, log_offset DESC
LIMIT 1 BY intDiv(at_ms - {from_ms:Int64}, {step_ms:Int64})
