-- Boot loops reported, beside what is normal: the mean of the hours before the chosen time, at most six.
SELECT
    $__timeInterval(minute) AS time,
    sum(boot_loops) AS boot_loops,
    (
        SELECT sum(boot_loops) * $__interval_s / greatest(60, dateDiff('second', min(minute), $__fromTime))
        FROM crash_minutes FINAL
        WHERE minute >= $__fromTime - INTERVAL 6 HOUR AND minute < $__fromTime
    ) AS normal
FROM crash_minutes FINAL
WHERE $__timeFilter(minute) AND ring IN (${ring:singlequote}) AND os_build IN (${os_build:singlequote})
    AND tenant IN (${tenant:singlequote})
GROUP BY time
ORDER BY time
