-- Exposed devices that fell silent when they should have been heard, by rollout: the running count of its verdicts.
SELECT
    $__timeInterval(at) AS time,
    concat(product, ' ', version) AS rollout,
    max(arraySum(arrayMap(m -> if(m.name = 'silence', m.events_exposed, 0), methods))) AS silent
FROM verdicts FINAL
WHERE $__timeFilter(at) AND product IN (${product:singlequote})
GROUP BY time, rollout
ORDER BY time
