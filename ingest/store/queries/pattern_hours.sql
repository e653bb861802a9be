-- Crashes by hour, signature, OS build and model, and how many of them were on devices that a young rollout had reached:
-- by an earlier install or offer, or by the versions on disk. At most 4,096 patterns an hour, those with most crashes.
-- param from DateTime('UTC'): first hour's beginning, UTC
-- param to DateTime('UTC'): end, UTC, not included
-- param young_from DateTime('UTC'): a rollout is young if its origin lies at or after this
WITH
    latest AS
    (
        SELECT concat(vendor, '/', product, ' ', version) AS name
        FROM (SELECT * FROM rollouts FINAL ORDER BY log_offset DESC LIMIT 1 BY rollout)
        WHERE closed = 0 AND origin >= {young_from:DateTime('UTC')} AND origin < {to:DateTime('UTC')}
        ORDER BY origin DESC, name
        LIMIT 256
    )
SELECT
    hour, signature, os_build, model,
    count() AS crashes,
    uniqExact(device) AS devices,
    groupUniqArray(32)(tenant) AS tenants,
    sumMap(reached, arrayMap(name -> toUInt64(1), reached)) AS on_rollouts
FROM
(
    SELECT
        hour, signature, os_build, model, fell.device AS device, tenant,
        arrayDistinct(
            arrayConcat(
                arrayIntersect(every.names, fell.disk),
                arrayMap(word -> word.1, arrayFilter(word -> word.2 <= fell.at, told.words))
            )
        ) AS reached
    FROM
    (
        SELECT
            at, intDiv(toUnixTimestamp64Milli(at), 3600000) AS hour, toString(signature) AS signature,
            toString(os_build) AS os_build, toString(model) AS model, device, toString(tenant) AS tenant,
            arrayMap(held -> concat(held.vendor, '/', held.product, ' ', held.version), versions) AS disk
        FROM crashes FINAL
        WHERE at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND deliberate = 0
    ) AS fell
    CROSS JOIN (SELECT groupArray(name) AS names FROM latest) AS every
    LEFT JOIN
    (
        SELECT device, groupArray((name, at)) AS words
        FROM
        (
            SELECT device, concat(vendor, '/', product, ' ', version) AS name, at
            FROM installs FINAL
            WHERE at < {to:DateTime('UTC')} AND device IN
            (
                SELECT device FROM crashes FINAL WHERE at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')}
            )
        )
        WHERE name IN (SELECT name FROM latest)
        GROUP BY device
    ) AS told ON fell.device = told.device
)
GROUP BY hour, signature, os_build, model
ORDER BY hour, crashes DESC, signature, os_build, model
LIMIT 4096 BY hour
