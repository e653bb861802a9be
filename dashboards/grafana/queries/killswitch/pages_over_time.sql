-- Attempts to tell somebody over time, by how they ended.
SELECT $__timeInterval(at) AS time, answered, count() AS attempts
FROM pagings FINAL
WHERE $__timeFilter(at) AND rollout IN (SELECT rollout FROM rollouts FINAL WHERE product IN (${product:singlequote}))
GROUP BY time, answered
ORDER BY time, answered
