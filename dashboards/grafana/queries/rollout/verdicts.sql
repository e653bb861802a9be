-- What the statistics said over event time.
SELECT at AS time, verdict
FROM verdicts FINAL
WHERE rollout = '${rollout}' AND $__timeFilter(at)
ORDER BY at, log_offset
