-- A rollout's verdicts over event time, at most six hundred points: evidence that a hold and that a kill goes by, what
-- each needs, crashes in both arms, devices exposed, and the rate ratio with its interval.
-- param rollout String: its id
WITH
    (SELECT min(at) FROM verdicts WHERE rollout = {rollout:String}) AS began,
    (SELECT max(at) FROM verdicts WHERE rollout = {rollout:String}) AS ended,
    greatest(1, intDiv(dateDiff('second', began, ended), 600)) AS step
SELECT
    toUnixTimestamp64Milli(max(at)) / 1000 AS t,
    argMax(JSONExtractFloat(json, 'evidence', 'log10_hold_max'), (at, log_offset)) AS may_hold,
    argMax(log10_evidence_max, (at, log_offset)) AS may_kill,
    argMax(log10_needed_to_hold, (at, log_offset)) AS needed_to_hold,
    argMax(log10_needed_to_kill, (at, log_offset)) AS needed_to_kill,
    argMax(crashes_exposed, (at, log_offset)) AS exposed_crashes,
    argMax(crashes_control, (at, log_offset)) AS control_crashes,
    argMax(verdicts.exposed, (at, log_offset)) AS exposed_devices,
    argMax(ifNull(rate_ratio, -1), (at, log_offset)) AS ratio,
    argMax(ifNull(rate_ratio_low, -1), (at, log_offset)) AS ratio_low,
    argMax(ifNull(rate_ratio_high, -1), (at, log_offset)) AS ratio_high,
    argMax(tolerated_ratio, (at, log_offset)) AS tolerated
FROM verdicts FINAL
WHERE rollout = {rollout:String}
GROUP BY intDiv(toUnixTimestamp(at), step)
ORDER BY t
LIMIT 1000
