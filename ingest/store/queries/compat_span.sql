-- The latest event time of any install or crash, in milliseconds since the epoch, and how many of both there are.
SELECT max(latest) AS latest_ms, sum(rows) AS reports
FROM
(
    SELECT toUnixTimestamp64Milli(max(at)) AS latest, count() AS rows FROM installs FINAL
    UNION ALL
    SELECT toUnixTimestamp64Milli(max(at)) AS latest, count() AS rows FROM crashes FINAL
)
