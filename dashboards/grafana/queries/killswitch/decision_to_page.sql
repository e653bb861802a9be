-- From the first hold or kill to the first page that was taken, for each rollout and whoever was told; by the wall clock.
SELECT
    k.stopped_product AS product, k.stopped_version AS version, k.rollout AS rollout, p.owner AS owner, k.decided AS decided_at,
    p.told AS told_at, (toUnixTimestamp64Milli(p.told) - toUnixTimestamp64Milli(k.decided)) / 1000 AS seconds_to_page
FROM
(
    SELECT rollout, any(product) AS stopped_product, any(version) AS stopped_version, min(decided_at) AS decided
    FROM killswitch FINAL
    WHERE decision IN ('hold', 'kill') AND NOT dry_run AND product IN (${product:singlequote})
    GROUP BY rollout
    HAVING $__timeFilter(decided)
) AS k
INNER JOIN
(
    SELECT rollout, owner, min(at) AS told
    FROM pagings FINAL WHERE step = 'trigger' AND answered = 'delivered' GROUP BY rollout, owner
) AS p ON k.rollout = p.rollout
ORDER BY decided_at DESC, owner
LIMIT 50
