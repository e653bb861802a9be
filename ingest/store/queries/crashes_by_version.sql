-- Crashes and crashed devices of one product, per minute and update version.
-- A crash report carries the versions read from disk, so a device that died at once counts under the version it had.
-- param product String: product, without its vendor
-- param from DateTime('UTC'): first minute, UTC
-- param to DateTime('UTC'): end, UTC, not included
SELECT minute, vendor, version, sum(crashes) AS crashes, uniqMerge(devices) AS devices
FROM version_crash_minutes FINAL
WHERE product = {product:String} AND minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY minute, vendor, version
ORDER BY minute, vendor, version
