-- Rollouts that are held or killed now, by their last live event.
SELECT countIf(decision IN ('hold', 'kill')) AS stopped
FROM (SELECT * FROM killswitch FINAL WHERE NOT dry_run ORDER BY number DESC LIMIT 1 BY rollout)
