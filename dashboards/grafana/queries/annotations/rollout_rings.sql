-- When the push to each ring of the rollout began.
SELECT ring.2 AS time, concat('ring ', ring.1, ' begins') AS text, 'ring' AS tags
FROM (SELECT * FROM rollouts FINAL WHERE rollout = '${rollout}' ORDER BY log_offset DESC LIMIT 1)
ARRAY JOIN rings AS ring
WHERE ring.2 IS NOT NULL AND $__timeFilter(assumeNotNull(ring.2))
ORDER BY time
