-- Whom the update reached, by ring, OS build and tenant: devices that told of it (offered or installed), devices that
-- crashed with it on disk, their crashes and boot loops. Counts of devices are estimates from some 60 thousand on.
-- param vendor String: vendor
-- param product String: product, without its vendor
-- param version String: version
-- param limit UInt32: how many of each
SELECT
    dimension, name, sum(told) AS told, sum(crashed) AS crashed, sum(crashes) AS crashes, sum(boot_loops) AS boot_loops
FROM
(
    SELECT
        one.1 AS dimension, one.2 AS name, uniqMerge(devices) AS told, toUInt64(0) AS crashed, toUInt64(0) AS crashes,
        toUInt64(0) AS boot_loops
    FROM install_minutes FINAL
    ARRAY JOIN
        [('all', ''), ('ring', toString(ring)), ('os_build', toString(os_build)), ('tenant', toString(tenant))] AS one
    WHERE vendor = {vendor:String} AND product = {product:String} AND version = {version:String}
    GROUP BY dimension, name
    UNION ALL
    SELECT
        one.1 AS dimension, one.2 AS name, toUInt64(0) AS told, uniqMerge(devices) AS crashed, sum(crashes) AS crashes,
        sum(boot_loops) AS boot_loops
    FROM version_crash_minutes FINAL
    ARRAY JOIN
        [('all', ''), ('ring', toString(ring)), ('os_build', toString(os_build)), ('tenant', toString(tenant))] AS one
    WHERE vendor = {vendor:String} AND product = {product:String} AND version = {version:String}
    GROUP BY dimension, name
)
GROUP BY dimension, name
ORDER BY dimension, crashed DESC, told DESC, name
LIMIT {limit:UInt32} BY dimension
