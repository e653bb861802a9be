-- Crashed devices that had the version, by OS build and ring.
SELECT os_build, ring, uniqMerge(devices) AS devices
FROM version_crash_minutes FINAL
WHERE (vendor, product, version) IN (SELECT vendor, product, version FROM rollouts WHERE rollout = '${rollout}')
    AND $__timeFilter(minute)
GROUP BY os_build, ring
ORDER BY devices DESC, os_build, ring
LIMIT 50
