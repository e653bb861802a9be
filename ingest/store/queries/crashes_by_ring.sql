-- Crashes and crashed devices by ring, most devices first.
-- param from DateTime('UTC'): first minute, UTC
-- param to DateTime('UTC'): end, UTC, not included
SELECT ring, sum(crashes) AS crashes, sum(boot_loops) AS boot_loops, uniqMerge(devices) AS devices
FROM crash_minutes FINAL
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY ring
ORDER BY devices DESC, ring
