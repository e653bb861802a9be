-- Crashes and crashed devices by OS build, most devices first.
-- param from DateTime('UTC'): first minute, UTC
-- param to DateTime('UTC'): end, UTC, not included
SELECT os_build, sum(crashes) AS crashes, sum(boot_loops) AS boot_loops, uniqMerge(devices) AS devices
FROM crash_minutes FINAL
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY os_build
ORDER BY devices DESC, os_build
