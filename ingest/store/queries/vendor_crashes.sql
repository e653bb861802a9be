-- Devices that crashed in a span with a version of one product on their disk, each once a version with its first crash,
-- by tenant: what a vendor's view is cut from, after small groups are suppressed. Never shown as it is.
-- param vendor String: vendor
-- param product String: product, without its vendor
-- param from DateTime('UTC'): first moment, UTC
-- param to DateTime('UTC'): end, UTC, not included
-- param before DateTime('UTC'): received before, UTC
SELECT version, first.2 AS os_build, first.3 AS module, first.4 AS signature, first.5 AS tenant, count() AS devices
FROM
(
    SELECT
        device, update.3 AS version,
        min((
            (at, partition, log_offset, log_index), toString(os_build), toString(signature_module),
            toString(signature), toString(tenant)
        )) AS first
    FROM crashes FINAL
    ARRAY JOIN versions AS update
    WHERE at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND received_at < {before:DateTime('UTC')}
        AND deliberate = 0 AND update.1 = {vendor:String} AND update.2 = {product:String}
    GROUP BY device, version
)
GROUP BY version, os_build, module, signature, tenant
ORDER BY version, os_build, module, signature, tenant
