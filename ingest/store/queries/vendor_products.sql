-- Products that devices were offered or installed, or had on their disk at a crash, in a span: whose is settled elsewhere.
-- param since DateTime('UTC'): first moment, UTC
-- param to DateTime('UTC'): end, UTC, not included
-- param before DateTime('UTC'): received before, UTC
SELECT DISTINCT vendor, product
FROM
(
    SELECT DISTINCT toString(vendor) AS vendor, toString(product) AS product
    FROM installs
    WHERE at >= {since:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND received_at < {before:DateTime('UTC')}
    UNION ALL
    SELECT DISTINCT update.1 AS vendor, update.2 AS product
    FROM crashes
    ARRAY JOIN versions AS update
    WHERE at >= {since:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND received_at < {before:DateTime('UTC')}
)
ORDER BY vendor, product
LIMIT 50000
