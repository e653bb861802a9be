-- Where the switch stands, by its last event.
SELECT state, decision, cause, number, dry_run, sentence, decided_at
FROM killswitch FINAL WHERE rollout = '${rollout}'
ORDER BY number DESC
LIMIT 1
