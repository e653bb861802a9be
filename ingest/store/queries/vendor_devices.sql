-- Devices that were offered or installed a version of one product in a span, each once a version with its last word, by
-- tenant: what a vendor's rates are by, after small groups are suppressed. Never shown as it is.
-- param vendor String: vendor
-- param product String: product, without its vendor
-- param since DateTime('UTC'): first moment, UTC
-- param to DateTime('UTC'): end, UTC, not included
-- param before DateTime('UTC'): received before, UTC
SELECT version, last.2 AS os_build, last.3 AS tenant, count() AS devices
FROM
(
    SELECT
        device, toString(version) AS version,
        max(((at, partition, log_offset, log_index), toString(os_build), toString(tenant))) AS last
    FROM installs FINAL
    WHERE at >= {since:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND received_at < {before:DateTime('UTC')}
        AND vendor = {vendor:String} AND product = {product:String}
    GROUP BY device, version
)
GROUP BY version, os_build, tenant
ORDER BY version, os_build, tenant
