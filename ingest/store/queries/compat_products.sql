-- Products by how many devices were offered or installed an update of them: what `cordon compat` goes through.
-- param to DateTime('UTC'): end, UTC, not included
-- param limit UInt32: how many
SELECT vendor, product, uniqExact(device) AS devices, uniqExact(version) AS versions
FROM installs FINAL
WHERE at < {to:DateTime('UTC')}
GROUP BY vendor, product
ORDER BY devices DESC, vendor, product
LIMIT {limit:UInt32}
