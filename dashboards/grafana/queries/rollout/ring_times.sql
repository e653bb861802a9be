-- The push to each ring on a time line: which share of its push has been through.
SELECT
    toDateTime(arrayJoin(range(
        toUInt32(toUnixTimestamp($__fromTime)), toUInt32(toUnixTimestamp($__toTime)), toUInt32(greatest(60, $__interval_s))
    ))) AS time,
    one.1 AS ring,
    least(1, greatest(0, (toUnixTimestamp(time) - toUnixTimestamp(assumeNotNull(one.2))) / greatest(1, one.3))) AS pushed
FROM (SELECT * FROM rollouts FINAL WHERE rollout = '${rollout}' ORDER BY log_offset DESC LIMIT 1)
ARRAY JOIN rings AS one
WHERE one.2 IS NOT NULL
ORDER BY time
