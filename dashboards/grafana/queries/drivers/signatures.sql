-- Signatures of the chosen versions: how many devices, where first.
SELECT
    signature, uniqMerge(devices) AS devices, sum(crashes) AS crashes, sum(boot_loops) AS boot_loops,
    uniq(version) AS versions, uniq(os_build) AS os_builds, uniq(tenant) AS tenants,
    min(minute) AS first_seen, max(minute) AS last_seen
FROM version_crash_minutes FINAL
WHERE $__timeFilter(minute) AND product IN (${product:singlequote}) AND version IN (${version:singlequote})
    AND ring IN (${ring:singlequote}) AND os_build IN (${os_build:singlequote}) AND tenant IN (${tenant:singlequote})
GROUP BY signature
ORDER BY devices DESC, signature
LIMIT 50
