-- Devices that crashed in the chosen time.
SELECT uniqMerge(devices) AS devices
FROM crash_minutes FINAL
WHERE $__timeFilter(minute) AND ring IN (${ring:singlequote}) AND os_build IN (${os_build:singlequote})
    AND tenant IN (${tenant:singlequote})
