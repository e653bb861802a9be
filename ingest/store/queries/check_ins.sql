-- Check-ins per minute: the fleet's pulse, by event time.
-- param from DateTime('UTC'): first minute, UTC
-- param to DateTime('UTC'): end, UTC, not included
SELECT minute, sum(check_ins) AS check_ins
FROM check_in_minutes FINAL
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY minute
ORDER BY minute
