-- The modules that most devices crashed in, in the chosen time.
SELECT
    module, uniqMerge(devices) AS devices, sum(crashes) AS crashes, sum(boot_loops) AS boot_loops,
    min(minute) AS first_seen, max(minute) AS last_seen
FROM crash_minutes FINAL
WHERE $__timeFilter(minute) AND ring IN (${ring:singlequote}) AND os_build IN (${os_build:singlequote})
    AND tenant IN (${tenant:singlequote})
GROUP BY module
ORDER BY devices DESC, module
LIMIT 20
