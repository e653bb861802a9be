-- Devices that had the version and crashed, by OS build and ring.
-- param vendor String: of the update
-- param product String: of the update
-- param version String: of the update
SELECT os_build, ring, uniqMerge(devices) AS devices, sum(crashes) AS crashes, sum(boot_loops) AS boot_loops
FROM version_crash_minutes FINAL
WHERE vendor = {vendor:String} AND product = {product:String} AND version = {version:String}
GROUP BY os_build, ring
ORDER BY devices DESC, os_build, ring
LIMIT 30
