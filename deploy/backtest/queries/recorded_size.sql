-- How much is kept of one rollout: devices of its product, devices of any, its `offered` reports, and its crashes.
-- param vendor String: vendor
-- param product String: product, without its vendor
-- param version String: the rollout's version
-- param origin Int64: when the rollout began, milliseconds since the epoch
-- param to Int64: end, milliseconds since the epoch, not included
SELECT
    uniqExactIf(device, vendor = {vendor:String} AND product = {product:String}) AS devices,
    uniqExact(device) AS fleet,
    countIf(
        kind = 'offered' AND vendor = {vendor:String} AND product = {product:String} AND version = {version:String}
    ) AS offers,
    (
        SELECT count()
        FROM crashes FINAL
        WHERE at >= fromUnixTimestamp64Milli({origin:Int64}) AND at < fromUnixTimestamp64Milli({to:Int64})
    ) AS crashes
FROM installs FINAL
WHERE at < fromUnixTimestamp64Milli({to:Int64})
