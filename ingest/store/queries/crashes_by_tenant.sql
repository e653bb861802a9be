-- Crashes and crashed devices by tenant, most devices first.
-- param from DateTime: first minute, UTC
-- param to DateTime: end, UTC, not included
SELECT tenant, sum(crashes) AS crashes, sum(boot_loops) AS boot_loops, uniqMerge(devices) AS devices
FROM crash_minutes FINAL
WHERE minute >= {from:DateTime} AND minute < {to:DateTime}
GROUP BY tenant
ORDER BY devices DESC, tenant
