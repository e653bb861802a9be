-- The same age of each rollout compared: devices crashed within so many hours of its beginning.
SELECT
    r.product AS product, r.version AS version,
    uniqMergeIf(c.devices, c.minute < r.origin + INTERVAL 1 HOUR) AS first_hour,
    uniqMergeIf(c.devices, c.minute < r.origin + INTERVAL 6 HOUR) AS first_6_hours,
    uniqMergeIf(c.devices, c.minute < r.origin + INTERVAL 24 HOUR) AS first_day,
    uniqMergeIf(c.devices, c.minute < r.origin + INTERVAL 7 DAY) AS first_week,
    any(r.origin) AS began
FROM (SELECT * FROM rollouts FINAL WHERE product IN (${product:singlequote}) ORDER BY log_offset DESC LIMIT 1 BY rollout) AS r
INNER JOIN version_crash_minutes AS c FINAL ON c.vendor = r.vendor AND c.product = r.product AND c.version = r.version
WHERE c.minute >= r.origin AND c.ring IN (${ring:singlequote}) AND c.os_build IN (${os_build:singlequote})
    AND c.tenant IN (${tenant:singlequote})
GROUP BY product, version
ORDER BY began DESC
LIMIT 50
