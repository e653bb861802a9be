-- Crashed devices for each thousand check-ins, by ring.
SELECT c.time AS time, c.ring AS ring, 1000 * c.crashed / k.check_ins AS crash_rate
FROM
(
    SELECT $__timeInterval(minute) AS time, ring, uniqMerge(devices) AS crashed
    FROM crash_minutes FINAL
    WHERE $__timeFilter(minute) AND ring IN (${ring:singlequote}) AND os_build IN (${os_build:singlequote})
        AND tenant IN (${tenant:singlequote})
    GROUP BY time, ring
) AS c
INNER JOIN
(
    SELECT $__timeInterval(minute) AS time, ring, sum(check_ins) AS check_ins
    FROM check_in_minutes FINAL
    WHERE $__timeFilter(minute) AND ring IN (${ring:singlequote}) AND os_build IN (${os_build:singlequote})
        AND tenant IN (${tenant:singlequote})
    GROUP BY time, ring
) AS k ON c.time = k.time AND c.ring = k.ring
ORDER BY time
