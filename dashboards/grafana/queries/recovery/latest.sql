-- Devices of the rollout at the last minute of the chosen time: recovered, looping and silent.
SELECT minute, recovered, looping, silent, recovered / greatest(1, recovered + looping + silent) AS back
FROM recoveries FINAL
WHERE rollout = '${rollout}' AND $__timeFilter(minute)
ORDER BY minute DESC, log_offset DESC
LIMIT 1
