-- Crashed devices by version.
SELECT $__timeInterval(minute) AS time, concat(product, ' ', version) AS update, uniqMerge(devices) AS crashed
FROM version_crash_minutes FINAL
WHERE $__timeFilter(minute) AND product IN (${product:singlequote}) AND version IN (${version:singlequote})
    AND ring IN (${ring:singlequote}) AND os_build IN (${os_build:singlequote}) AND tenant IN (${tenant:singlequote})
GROUP BY time, update
ORDER BY time
