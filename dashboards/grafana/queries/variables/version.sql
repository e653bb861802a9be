-- Versions of the chosen products that a device crashed on or a rollout is known of, in the chosen time.
SELECT DISTINCT version
FROM
(
    SELECT version FROM rollouts WHERE product IN (${product:singlequote})
    UNION ALL
    SELECT version FROM version_crash_minutes WHERE product IN (${product:singlequote}) AND $__timeFilter(minute)
)
ORDER BY version DESC
