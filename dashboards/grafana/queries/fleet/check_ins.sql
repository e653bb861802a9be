-- Check-ins by ring, as a share of the mean of the hour before: what falls far below 1 has gone silent.
SELECT time, ring, check_ins / mean AS check_ins_of_normal
FROM
(
    SELECT
        $__timeInterval(minute) AS time,
        ring,
        sum(check_ins) AS check_ins,
        avg(check_ins) OVER (PARTITION BY ring ORDER BY time ROWS BETWEEN 60 PRECEDING AND 1 PRECEDING) AS mean
    FROM check_in_minutes FINAL
    WHERE $__timeFilter(minute) AND ring IN (${ring:singlequote}) AND os_build IN (${os_build:singlequote})
        AND tenant IN (${tenant:singlequote})
    GROUP BY time, ring
)
WHERE mean > 0
ORDER BY time
