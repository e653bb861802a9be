-- Evidence of harm as log10 of the e-value, beside what a hold and a kill need.
SELECT at AS time, log10_evidence_max AS evidence, log10_needed_to_hold AS needed_to_hold, log10_needed_to_kill AS needed_to_kill
FROM verdicts FINAL
WHERE rollout = '${rollout}' AND $__timeFilter(at)
ORDER BY at, log_offset
