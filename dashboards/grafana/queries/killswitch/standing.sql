-- Rollouts that are stopped now: since when, by whom, and why.
SELECT product, version, rollout, state, cause, name, decided_at AS since, sentence
FROM (SELECT * FROM killswitch FINAL WHERE NOT dry_run ORDER BY number DESC LIMIT 1 BY rollout)
WHERE decision IN ('hold', 'kill') AND product IN (${product:singlequote})
ORDER BY since DESC
LIMIT 100
