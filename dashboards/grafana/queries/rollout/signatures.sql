-- The signatures on devices that had the version, most devices first.
SELECT signature, uniqMerge(devices) AS devices, sum(crashes) AS crashes, min(minute) AS first_seen
FROM version_crash_minutes FINAL
WHERE (vendor, product, version) IN (SELECT vendor, product, version FROM rollouts WHERE rollout = '${rollout}')
    AND $__timeFilter(minute)
GROUP BY signature
ORDER BY devices DESC, signature
LIMIT 20
