-- Crashes since a rollout began, of devices that have its product: by the versions read from disk, or by an earlier
-- report of an update of it. Crashes that a person asked for are left out.
-- param vendor String: vendor
-- param product String: product, without its vendor
-- param version String: the rollout's version
-- param origin Int64: when the rollout began, milliseconds since the epoch
-- param to Int64: end, milliseconds since the epoch, not included
-- param one_in UInt32: a sample of one device in so many, by hash
-- param parts UInt32: how many parts the sample is split into, by hash
-- param part UInt32: the part asked for, from 0
SELECT
    device, toUnixTimestamp64Milli(at), toUnixTimestamp64Milli(received_at), toString(kind), toString(tenant),
    toString(os_build), toString(form_factor), toString(model), toString(ring), toString(site), toString(signature),
    arrayExists(
        v -> v.vendor = {vendor:String} AND v.product = {product:String} AND v.version = {version:String}, versions
    ) AS named
FROM crashes FINAL
WHERE at >= fromUnixTimestamp64Milli({origin:Int64}) AND at < fromUnixTimestamp64Milli({to:Int64})
    AND deliberate = 0 AND cityHash64(device) % {one_in:UInt32} = 0
    AND intDiv(cityHash64(device), {one_in:UInt32}) % {parts:UInt32} = {part:UInt32}
    AND (
        arrayExists(v -> v.vendor = {vendor:String} AND v.product = {product:String}, versions)
        OR device IN (SELECT device FROM installs WHERE vendor = {vendor:String} AND product = {product:String})
    )
ORDER BY received_at, device, at
