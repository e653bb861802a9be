-- Devices that crashed with a product on disk: how many in all, how many whose installs never told of it, so that their
-- time at risk is not known, and how many had moved to another OS build than they last told.
-- param vendor String: vendor
-- param product String: product, without its vendor
-- param from DateTime('UTC'): first moment, UTC
-- param to DateTime('UTC'): end, UTC, not included
-- param module String: only crashes blamed on this module; empty for all
-- param parts UInt32: how many parts devices are split into, by hash; 1 for one
-- param part UInt32: the part asked for, from 0; counts of parts add up
SELECT
    uniqExact(device) AS crashed,
    uniqExactIf(device, told.device = '') AS untold,
    uniqExactIf(device, told.device != '' AND told.os_build != fell.os_build) AS moved
FROM
(
    SELECT device, toString(os_build) AS os_build
    FROM crashes FINAL
    WHERE at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND deliberate = 0
        AND ({module:String} = '' OR signature_module = {module:String})
        AND cityHash64(device) % {parts:UInt32} = {part:UInt32}
        AND arrayExists(held -> held.vendor = {vendor:String} AND held.product = {product:String}, versions)
) AS fell
LEFT JOIN
(
    SELECT device, toString(argMax(os_build, at)) AS os_build
    FROM installs FINAL
    WHERE at < {to:DateTime('UTC')} AND device IN
    (
        SELECT device FROM installs FINAL
        WHERE vendor = {vendor:String} AND product = {product:String} AND at < {to:DateTime('UTC')}
    )
    GROUP BY device
) AS told ON fell.device = told.device
