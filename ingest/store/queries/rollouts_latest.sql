-- Every rollout as last declared or discovered, newest origin first.
-- param limit UInt32: how many
SELECT rollout, vendor, product, update_kind, version, origin, bound, pushed_devices, declared_by, discovered_by, closed
FROM (SELECT * FROM rollouts FINAL ORDER BY log_offset DESC LIMIT 1 BY rollout)
ORDER BY origin DESC, rollout
LIMIT {limit:UInt32}
