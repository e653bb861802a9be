-- The evidence on a rollout over event time: log10 of the e-value, what a hold and a kill need, and the counts.
-- param rollout String: rollout id
SELECT
    at, verdict, decision, reason, log10_evidence, log10_evidence_max, log10_needed_to_hold, log10_needed_to_kill,
    crashes_exposed, crashes_control, exposed, rate_ratio, sentence
FROM verdicts FINAL
WHERE rollout = {rollout:String}
ORDER BY at, log_offset
