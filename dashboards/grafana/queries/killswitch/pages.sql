-- Every attempt to tell somebody, newest first, with the answer; by the wall clock.
SELECT
    p.at AS at, r.shipped_product AS product, r.shipped_version AS version, p.rollout AS rollout, owner, route, channel, step,
    level, attempt, answered, status, seconds, answer, headline
FROM (SELECT * FROM pagings FINAL WHERE $__timeFilter(at)) AS p
INNER JOIN
(
    SELECT rollout, any(product) AS shipped_product, any(version) AS shipped_version
    FROM rollouts FINAL WHERE product IN (${product:singlequote}) GROUP BY rollout
) AS r ON p.rollout = r.rollout
ORDER BY at DESC, p.partition, p.log_offset DESC
LIMIT 200
