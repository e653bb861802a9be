-- Crashes and crashed devices by driver (the module that the signature blames), most devices first.
-- param from DateTime: first minute, UTC
-- param to DateTime: end, UTC, not included
SELECT module, sum(crashes) AS crashes, sum(boot_loops) AS boot_loops, uniqMerge(devices) AS devices
FROM crash_minutes FINAL
WHERE minute >= {from:DateTime} AND minute < {to:DateTime}
GROUP BY module
ORDER BY devices DESC, module
