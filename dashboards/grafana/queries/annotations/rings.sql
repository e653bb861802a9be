-- When the push to each ring began.
SELECT ring.2 AS time, concat('ring ', ring.1, ' begins: ', product, ' ', version) AS text, 'ring' AS tags
FROM (SELECT * FROM rollouts FINAL ORDER BY log_offset DESC LIMIT 1 BY rollout)
ARRAY JOIN rings AS ring
WHERE ring.2 IS NOT NULL AND $__timeFilter(assumeNotNull(ring.2)) AND product IN (${product:singlequote})
ORDER BY time
LIMIT 200
