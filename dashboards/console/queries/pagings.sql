-- The last attempts to page somebody, newest first.
SELECT
    toUnixTimestamp64Milli(at) AS at_ms, rollout, owner, route, channel, step, level, attempt, answered, status, answer,
    headline
FROM pagings FINAL
ORDER BY at DESC, log_offset DESC
LIMIT 100
