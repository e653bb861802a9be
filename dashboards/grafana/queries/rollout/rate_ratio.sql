-- Crash-rate ratio of exposed to control devices with its 95 % interval; where it cannot be told, nothing.
SELECT at AS time, rate_ratio_low AS low, rate_ratio AS ratio, rate_ratio_high AS high, tolerated_ratio AS tolerated
FROM verdicts FINAL
WHERE rollout = '${rollout}' AND $__timeFilter(at) AND rate_ratio IS NOT NULL
ORDER BY at, log_offset
