-- Evidence of harm as log10 of the e-value: what a hold goes by, and (without the loudest tenant group) what a kill does.
SELECT
    at AS time, JSONExtractFloat(json, 'evidence', 'log10_hold_max') AS may_hold, log10_evidence_max AS may_kill,
    log10_needed_to_hold AS needed_to_hold, log10_needed_to_kill AS needed_to_kill
FROM verdicts FINAL
WHERE rollout = '${rollout}' AND $__timeFilter(at)
ORDER BY at, log_offset
