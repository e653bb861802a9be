-- Rollouts, newest first: the id, and what people call it.
SELECT rollout AS value, concat(product, ' ', version, ' (', rollout, ')') AS text
FROM (SELECT * FROM rollouts FINAL ORDER BY log_offset DESC LIMIT 1 BY rollout)
ORDER BY origin DESC
LIMIT 500
