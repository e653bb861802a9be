-- Every kill-switch event that the store has of the rollout, as it lay in the log, with its signature.
-- param rollout String: rollout id
-- param limit UInt32: how many
SELECT number, envelope FROM killswitch FINAL WHERE rollout = {rollout:String} ORDER BY number, log_offset LIMIT {limit:UInt32}
