-- The rollout as it was last declared or discovered: the record as it lay in the log.
-- param rollout String: rollout id
SELECT json FROM rollouts FINAL WHERE rollout = {rollout:String} ORDER BY log_offset DESC LIMIT 1
