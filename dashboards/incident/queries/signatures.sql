-- Signatures of crashes with the update on disk, most devices first: devices with and without it that crashed so, when
-- first, and the most frequent stack (frames innermost first, a line each). From raw crashes, for as long as those are kept.
-- param vendor String: vendor
-- param product String: product, without its vendor
-- param version String: version
-- param from_ms Int64: first moment, event time in milliseconds since the epoch
-- param limit UInt32: how many
SELECT
    signature, any(module) AS module, uniqExactMerge(with_it) AS devices, uniqExactMerge(without_it) AS devices_without,
    sum(crashes) AS crashes_with, min(first_ms) AS first_seen_ms, argMax(stack, (crashes, stack)) AS frames
FROM
(
    SELECT
        toString(signature) AS signature, toString(signature_module) AS module,
        arrayExists(
            held -> (held.vendor, held.product, held.version) = ({vendor:String}, {product:String}, {version:String}),
            versions
        ) AS held_it,
        if(held_it, arrayStringConcat(arraySlice(fell.frames, 1, 12), '\n'), '') AS stack,
        uniqExactStateIf(device, held_it) AS with_it, uniqExactStateIf(device, NOT held_it) AS without_it,
        countIf(held_it) AS crashes, if(held_it, toUnixTimestamp64Milli(min(at)), 9223372036854775807) AS first_ms
    FROM crashes AS fell FINAL
    WHERE at >= fromUnixTimestamp64Milli({from_ms:Int64}) AND deliberate = 0
    GROUP BY signature, module, held_it, stack
)
GROUP BY signature
HAVING devices > 0
ORDER BY devices DESC, signature
LIMIT {limit:UInt32}
