-- Check-ins per minute: the fleet's pulse, by event time.
-- param from DateTime: first minute, UTC
-- param to DateTime: end, UTC, not included
SELECT minute, sum(check_ins) AS check_ins
FROM check_in_minutes FINAL
WHERE minute >= {from:DateTime} AND minute < {to:DateTime}
GROUP BY minute
ORDER BY minute
