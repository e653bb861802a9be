-- The rollout's verdicts over event time, the last one of each step.
-- param rollout String: rollout id
-- param from_ms Int64: first moment, event time in milliseconds since the epoch
-- param to_ms Int64: last moment
-- param step_ms Int64: length of a step
SELECT
    toUnixTimestamp64Milli(at) AS at_ms, log10_evidence_max AS evidence,
    JSONExtractFloat(json, 'evidence', 'log10_hold_max') AS may_hold, log10_needed_to_hold AS needed_to_hold,
    log10_needed_to_kill AS needed_to_kill, crashes_exposed, crashes_control, exposed,
    JSONExtract(json, 'heard_share', 'Nullable(Float64)') AS heard_share
FROM verdicts FINAL
WHERE rollout = {rollout:String}
    AND at BETWEEN fromUnixTimestamp64Milli({from_ms:Int64}) AND fromUnixTimestamp64Milli({to_ms:Int64})
ORDER BY at DESC, log_offset DESC
LIMIT 1 BY intDiv(at_ms - {from_ms:Int64}, {step_ms:Int64})
