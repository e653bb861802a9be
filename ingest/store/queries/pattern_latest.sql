-- Up to when the store has heard of anything: milliseconds since the epoch, 0 for an empty store.
SELECT max(latest) AS latest_ms
FROM
(
    SELECT toUnixTimestamp64Milli(max(received_at)) AS latest FROM crashes
    UNION ALL
    SELECT toUnixTimestamp64Milli(max(received_at)) AS latest FROM installs
    UNION ALL
    SELECT toInt64(toUnixTimestamp(max(minute))) * 1000 AS latest FROM check_in_minutes
)
