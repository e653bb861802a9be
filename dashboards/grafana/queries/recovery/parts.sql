-- Who is back and who is not, by ring and tenant, at the last minute of the chosen time.
SELECT
    part.1 AS ring, if(part.2 = '', 'smaller ones together', part.2) AS tenant, part.5 AS recovered, part.4 AS looping,
    part.3 AS silent, part.5 / greatest(1, part.3 + part.4 + part.5) AS back
FROM
(
    SELECT parts FROM recoveries FINAL WHERE rollout = '${rollout}' AND $__timeFilter(minute)
    ORDER BY minute DESC, log_offset DESC LIMIT 1
)
ARRAY JOIN parts AS part
ORDER BY looping + silent DESC, ring, tenant
LIMIT 100
