-- Devices of the rollout that crashed or fell silent, minute by minute: recovered, looping and silent.
SELECT minute AS time, recovered, looping, silent
FROM recoveries FINAL
WHERE rollout = '${rollout}' AND $__timeFilter(minute)
ORDER BY minute
