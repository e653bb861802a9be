-- Signatures with the module and stop code they blame, their most frequent stack (frames innermost first, a line each)
-- and how many devices crashed with them (one with several stacks counts for each), most devices first: what
-- near-duplicates are told by.
-- param from DateTime('UTC'): first moment, UTC
-- param to DateTime('UTC'): end, UTC, not included
-- param limit UInt32: how many
SELECT
    signature, any(module) AS module, splitByChar('|', signature)[2] AS bugcheck,
    argMax(stack, (times, stack)) AS frames, sum(seen_on) AS devices
FROM
(
    SELECT
        toString(signature) AS signature, toString(signature_module) AS module,
        arrayStringConcat(arraySlice(crashes.frames, 1, 8), '\n') AS stack, count() AS times,
        uniqExact(device) AS seen_on
    FROM crashes FINAL
    WHERE at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND deliberate = 0
    GROUP BY signature, module, stack
)
GROUP BY signature
ORDER BY devices DESC, signature
LIMIT {limit:UInt32}
