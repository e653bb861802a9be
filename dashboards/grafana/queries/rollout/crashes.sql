-- First crashes of exposed and of control devices since the rollout began.
SELECT at AS time, crashes_exposed AS exposed, crashes_control AS control
FROM verdicts FINAL
WHERE rollout = '${rollout}' AND $__timeFilter(at)
ORDER BY at, log_offset
