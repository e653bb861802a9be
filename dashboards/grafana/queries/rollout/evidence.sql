-- Evidence of harm as log10 of the e-value: with everybody, and without the loudest tenant group, which a kill goes by.
SELECT
    at AS time, JSONExtractFloat(json, 'evidence', 'log10_everybody_max') AS with_everybody, log10_evidence_max AS evidence,
    log10_needed_to_hold AS needed_to_hold, log10_needed_to_kill AS needed_to_kill
FROM verdicts FINAL
WHERE rollout = '${rollout}' AND $__timeFilter(at)
ORDER BY at, log_offset
