-- Crashes and crashed devices by tenant, most devices first.
-- param from DateTime('UTC'): first minute, UTC
-- param to DateTime('UTC'): end, UTC, not included
SELECT tenant, sum(crashes) AS crashes, sum(boot_loops) AS boot_loops, uniqMerge(devices) AS devices
FROM crash_minutes FINAL
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY tenant
ORDER BY devices DESC, tenant
