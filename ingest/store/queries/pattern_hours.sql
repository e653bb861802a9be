-- Crashes by hour, signature, OS build and model, and how many of them were on devices that a young rollout had reached:
-- by an earlier install or offer, or by the versions on disk. At most 4,096 patterns an hour, those with most crashes.
-- param from DateTime('UTC'): first hour's beginning, UTC
-- param to DateTime('UTC'): end, UTC, not included
-- param young_from DateTime('UTC'): a rollout is young if its origin lies at or after this
WITH
    (
        SELECT groupArray(name)
        FROM
        (
            SELECT concat(vendor, '/', product, ' ', version) AS name
            FROM (SELECT * FROM rollouts FINAL ORDER BY log_offset DESC LIMIT 1 BY rollout)
            WHERE closed = 0 AND origin >= {young_from:DateTime('UTC')} AND origin < {to:DateTime('UTC')}
            ORDER BY origin DESC, name
            LIMIT 256
        )
    ) AS young
SELECT
    hour, signature, os_build, model,
    count() AS crashes,
    uniqExact(device) AS devices,
    groupUniqArray(32)(tenant) AS tenants,
    sumMap(reached, arrayMap(name -> toUInt64(1), reached)) AS on_rollouts
FROM
(
    SELECT
        intDiv(toUnixTimestamp64Milli(fell.at), 3600000) AS hour, signature, os_build, model, fell.device AS device,
        tenant,
        arrayDistinct(
            arrayConcat(
                arrayFilter(
                    name -> has(young, name),
                    arrayMap(held -> concat(held.vendor, '/', held.product, ' ', held.version), versions)
                ),
                arrayMap(word -> word.1, arrayFilter(word -> word.2 <= fell.at, told.words))
            )
        ) AS reached
    FROM
    (
        SELECT
            at, toString(signature) AS signature, toString(os_build) AS os_build, toString(model) AS model, device,
            toString(tenant) AS tenant, versions
        FROM crashes FINAL
        WHERE at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND deliberate = 0
    ) AS fell
    LEFT JOIN
    (
        SELECT device, groupArray((concat(vendor, '/', product, ' ', version) AS name, at)) AS words
        FROM installs FINAL
        WHERE at < {to:DateTime('UTC')} AND has(young, name) AND device IN
        (
            SELECT device FROM crashes FINAL WHERE at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')}
        )
        GROUP BY device
    ) AS told ON fell.device = told.device
)
GROUP BY hour, signature, os_build, model
ORDER BY hour, crashes DESC, signature, os_build, model
LIMIT 4096 BY hour
