-- The signatures on devices that had the version, most devices first.
-- param vendor String: of the update
-- param product String: of the update
-- param version String: of the update
SELECT
    signature, uniqMerge(devices) AS devices, sum(crashes) AS crashes, sum(boot_loops) AS boot_loops,
    toUnixTimestamp(min(minute)) AS first_seen
FROM version_crash_minutes FINAL
WHERE vendor = {vendor:String} AND product = {product:String} AND version = {version:String}
GROUP BY signature
ORDER BY devices DESC, signature
LIMIT 20
