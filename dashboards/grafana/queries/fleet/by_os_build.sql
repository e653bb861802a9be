-- Crashed devices by OS build.
SELECT $__timeInterval(minute) AS time, os_build, uniqMerge(devices) AS crashed
FROM crash_minutes FINAL
WHERE $__timeFilter(minute) AND ring IN (${ring:singlequote}) AND os_build IN (${os_build:singlequote})
    AND tenant IN (${tenant:singlequote})
GROUP BY time, os_build
ORDER BY time
