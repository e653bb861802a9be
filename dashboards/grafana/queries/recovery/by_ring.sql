-- Devices that are not back, looping or silent, by ring.
SELECT minute AS time, part.1 AS ring, sum(part.3 + part.4) AS away
FROM recoveries FINAL
ARRAY JOIN parts AS part
WHERE rollout = '${rollout}' AND $__timeFilter(minute)
GROUP BY time, ring
ORDER BY time, ring
