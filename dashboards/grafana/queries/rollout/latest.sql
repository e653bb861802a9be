-- The numbers of the latest verdict in the chosen time.
SELECT
    crashes_exposed, crashes_control, exposed, tenants,
    log10_evidence_max AS evidence, log10_needed_to_hold AS needed_to_hold, log10_needed_to_kill AS needed_to_kill
FROM verdicts FINAL
WHERE rollout = '${rollout}' AND $__timeFilter(at)
ORDER BY at DESC, log_offset DESC
LIMIT 1
