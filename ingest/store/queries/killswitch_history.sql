-- Every kill-switch event of a rollout in order, with who or what decided and why.
-- param rollout String: rollout id
SELECT number, decided_at, previous_state, state, decision, cause, name, sentence, log10_evidence, dry_run
FROM killswitch FINAL
WHERE rollout = {rollout:String}
ORDER BY number
