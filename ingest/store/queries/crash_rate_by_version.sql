-- Crashed devices per minute and version of one product, beside the devices that said they installed it so far.
-- Installed is what was reported; who died at once never reported, which is why verdicts use exposure instead.
-- param product String: product, without its vendor
-- param from DateTime('UTC'): first minute, UTC
-- param to DateTime('UTC'): end, UTC, not included
SELECT
    c.minute AS minute,
    c.version AS version,
    c.crashes AS crashes,
    c.devices AS devices,
    i.installed AS installed,
    if(i.installed > 0, c.devices / i.installed, NULL) AS devices_per_installed
FROM
(
    SELECT minute, version, sum(crashes) AS crashes, uniqMerge(devices) AS devices
    FROM version_crash_minutes FINAL
    WHERE product = {product:String} AND minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
    GROUP BY minute, version
) AS c
LEFT JOIN
(
    SELECT version, uniqMerge(devices) AS installed
    FROM install_minutes FINAL
    WHERE product = {product:String} AND kind = 'installed' AND minute < {to:DateTime('UTC')}
    GROUP BY version
) AS i ON c.version = i.version
ORDER BY minute, version
