-- The signatures seen on devices that had a rollout's version, most devices first.
-- param rollout String: rollout id
-- param limit UInt32: how many
SELECT signature, sum(crashes) AS crashes, uniqMerge(devices) AS devices, min(minute) AS first_minute
FROM version_crash_minutes FINAL
WHERE (vendor, product, version) IN (SELECT vendor, product, version FROM rollouts WHERE rollout = {rollout:String})
GROUP BY signature
ORDER BY devices DESC, signature
LIMIT {limit:UInt32}
