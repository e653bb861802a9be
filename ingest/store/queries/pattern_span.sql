-- From when on the store has reports, but for the hundredth of them whose clocks are furthest behind, and up to when it
-- has heard of anything; both in milliseconds since the epoch, 0 for an empty store.
SELECT
    (
        SELECT if(count() = 0, 0, toInt64(quantileExact(0.01)(toUnixTimestamp64Milli(at))))
        FROM (SELECT at FROM crashes UNION ALL SELECT at FROM installs)
    ) AS first_ms,
    (
        SELECT max(latest)
        FROM
        (
            SELECT toUnixTimestamp64Milli(max(received_at)) AS latest FROM crashes
            UNION ALL
            SELECT toUnixTimestamp64Milli(max(received_at)) AS latest FROM installs
            UNION ALL
            SELECT toInt64(toUnixTimestamp(max(minute))) * 1000 AS latest FROM check_in_minutes
        )
    ) AS latest_ms
