-- Every rollout that began in a span, as last declared or discovered, as JSON; oldest first.
-- param vendor String: vendor; empty for all
-- param product String: product, without its vendor; empty for all
-- param from DateTime('UTC'): first moment, UTC
-- param to DateTime('UTC'): end, UTC, not included
-- param limit UInt32: how many
SELECT json
FROM (SELECT * FROM rollouts FINAL ORDER BY log_offset DESC LIMIT 1 BY rollout)
WHERE origin >= {from:DateTime('UTC')} AND origin < {to:DateTime('UTC')}
    AND ({vendor:String} = '' OR vendor = {vendor:String}) AND ({product:String} = '' OR product = {product:String})
ORDER BY origin, rollout
LIMIT {limit:UInt32}
