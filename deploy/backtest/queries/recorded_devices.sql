-- Devices that reported an update of a product: what they were before the rollout began (else first after), when they
-- first reported another version, when the rollout's, and when that arrived. Without the rollout's version, only those
-- that reported an update of anything shortly before it began: what was not heard of since may be gone.
-- param vendor String: vendor
-- param product String: product, without its vendor
-- param version String: the rollout's version
-- param heard Int64: how lately a device must have been heard from, milliseconds since the epoch
-- param origin Int64: when the rollout began, milliseconds since the epoch
-- param to Int64: end, milliseconds since the epoch, not included
-- param one_in UInt32: a sample of one device in so many, by hash
-- param parts UInt32: how many parts the sample is split into, by hash
-- param part UInt32: the part asked for, from 0
WITH
    toUnixTimestamp64Milli(at) AS at_ms,
    if(at_ms < {origin:Int64}, at_ms, -at_ms) AS fit,
    vendor = {vendor:String} AND product = {product:String} AS own,
    version = {version:String} AS new
SELECT
    device,
    argMax(toString(tenant), fit), argMax(toString(os_build), fit), argMax(toString(form_factor), fit),
    argMax(toString(model), fit), argMax(toString(ring), fit),
    minIf(at_ms, own AND NOT new) AS other_ms,
    minIf(at_ms, own AND new) AS exposed_ms,
    minIf(toUnixTimestamp64Milli(received_at), own AND new) AS known_ms
FROM installs FINAL
WHERE at < fromUnixTimestamp64Milli({to:Int64}) AND cityHash64(device) % {one_in:UInt32} = 0
    AND intDiv(cityHash64(device), {one_in:UInt32}) % {parts:UInt32} = {part:UInt32}
GROUP BY device
HAVING countIf(own) > 0 AND (exposed_ms > 0 OR maxIf(at_ms, at_ms < {origin:Int64}) >= {heard:Int64})
ORDER BY device
