-- Devices exposed, and devices at risk in each arm.
SELECT at AS time, exposed, at_risk_exposed, at_risk_control
FROM verdicts FINAL
WHERE rollout = '${rollout}' AND $__timeFilter(at)
ORDER BY at, log_offset
