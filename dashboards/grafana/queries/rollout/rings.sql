-- The rings as declared: when each begins, how long the push takes, and which part of the ring it reaches.
SELECT one.1 AS ring, one.2 AS begins, one.3 AS push_seconds, one.4 AS share
FROM (SELECT * FROM rollouts FINAL WHERE rollout = '${rollout}' ORDER BY log_offset DESC LIMIT 1)
ARRAY JOIN rings AS one
ORDER BY begins
