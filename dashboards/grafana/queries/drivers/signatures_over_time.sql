-- The five loudest signatures over time.
SELECT $__timeInterval(minute) AS time, signature, uniqMerge(devices) AS crashed
FROM version_crash_minutes FINAL
WHERE $__timeFilter(minute) AND product IN (${product:singlequote}) AND version IN (${version:singlequote})
    AND signature IN
    (
        SELECT signature FROM version_crash_minutes FINAL
        WHERE $__timeFilter(minute) AND product IN (${product:singlequote}) AND version IN (${version:singlequote})
        GROUP BY signature ORDER BY uniqMerge(devices) DESC, signature LIMIT 5
    )
GROUP BY time, signature
ORDER BY time
