-- Devices, device-days at risk and crashed devices, by version of one product and by what else the device had then: its
-- OS build, its model, and each other product's version, and at how many tenants. A device has what it last said when it was offered or installed
-- something; its time begins with the first word on both and ends with its first crash, the next word, or the end.
-- param vendor String: vendor
-- param product String: product, without its vendor
-- param from DateTime('UTC'): first moment, UTC; earlier words still tell what a device had then
-- param to DateTime('UTC'): end, UTC, not included
-- param module String: only crashes blamed on this module; empty for all
-- param parts UInt32: how many parts devices are split into, by hash; 1 for one
-- param part UInt32: the part asked for, from 0; counts of parts add up, but for tenants
WITH
    said AS
    (
        SELECT
            device, at, toString(version) AS version, vendor = {vendor:String} AND product = {product:String} AS own,
            concat(vendor, '/', product) AS name, toString(os_build) AS os_build, toString(os_family) AS os_family,
            toString(model) AS model, toString(form_factor) AS form_factor, toString(tenant) AS tenant
        FROM installs FINAL
        WHERE at < {to:DateTime('UTC')} AND cityHash64(device) % {parts:UInt32} = {part:UInt32}
    ),
    had AS
    (
        SELECT device, arraySort(groupArray((at, version))) AS words, min(tenant) AS tenant
        FROM said
        WHERE own
        GROUP BY device
    ),
    beside AS
    (
        SELECT device, facts.1 AS factor, arraySort(groupArray((at, facts.2, facts.3))) AS words
        FROM said
        ARRAY JOIN
            [
                ('os build', os_build, form_factor),
                ('model', if(model = '', '(no model)', model), os_family),
                (if(own, '', name), version, os_family)
            ] AS facts
        WHERE factor != '' AND device IN (SELECT device FROM had)
        GROUP BY device, factor
    ),
    fell AS
    (
        SELECT device, arraySort(groupArray(at)) AS crashed_at
        FROM crashes FINAL
        WHERE at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND deliberate = 0
            AND ({module:String} = '' OR signature_module = {module:String})
            AND cityHash64(device) % {parts:UInt32} = {part:UInt32}
        GROUP BY device
    ),
    mine AS
    (
        SELECT device, tenant, kept.1 AS begin, kept.2 AS version, ends AS end
        FROM
        (
            SELECT
                device, tenant,
                arrayFilter((word, i) -> i = 1 OR word.2 != words[i - 1].2, words, arrayEnumerate(words)) AS changes,
                arrayPushBack(
                    arrayPopFront(arrayMap(word -> word.1, changes)), toDateTime64({to:DateTime('UTC')}, 3, 'UTC')
                ) AS till
            FROM had
        )
        ARRAY JOIN changes AS kept, till AS ends
    ),
    theirs AS
    (
        SELECT device, factor, kept.1 AS begin, kept.2 AS level, kept.3 AS stratum, ends AS end
        FROM
        (
            SELECT
                device, factor,
                arrayFilter(
                    (word, i) -> i = 1 OR (word.2, word.3) != (words[i - 1].2, words[i - 1].3),
                    words, arrayEnumerate(words)
                ) AS changes,
                arrayPushBack(
                    arrayPopFront(arrayMap(word -> word.1, changes)), toDateTime64({to:DateTime('UTC')}, 3, 'UTC')
                ) AS till
            FROM beside
        )
        ARRAY JOIN changes AS kept, till AS ends
    )
SELECT
    factor, version, level, stratum,
    uniqExact(device) AS devices,
    sum(greatest(dateDiff('millisecond', start, if(crashed, first_crash, stop)), 1000)) / 86400000 AS device_days,
    uniqExactIf(device, crashed) AS crashes,
    uniqExact(tenant) AS tenants
FROM
(
    SELECT
        mine.device AS device, mine.tenant AS tenant, factor, version, level, stratum,
        greatest(mine.begin, theirs.begin, toDateTime64({from:DateTime('UTC')}, 3, 'UTC')) AS start,
        least(mine.end, theirs.end) AS stop,
        arrayFilter(moment -> moment >= start AND moment < stop, fell.crashed_at) AS inside,
        notEmpty(inside) AS crashed,
        inside[1] AS first_crash
    FROM mine
    INNER JOIN theirs ON mine.device = theirs.device
    LEFT JOIN fell ON mine.device = fell.device
    WHERE start < stop
)
GROUP BY factor, version, level, stratum
ORDER BY factor, device_days DESC, version, level, stratum
