-- Every event of the rollout's switch.
SELECT number, decided_at, state, decision, cause, name, dry_run, sentence
FROM killswitch FINAL
WHERE rollout = '${rollout}'
ORDER BY number DESC
LIMIT 100
