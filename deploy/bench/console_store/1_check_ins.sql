-- A day of check-ins, a row for each minute, ring, OS build, tenant and partition.
INSERT INTO check_in_minutes (minute, tenant, ring, os_build, partition, block, check_ins, stored_at)
SELECT
    toDateTime(${end} - 60 * intDiv(number, ${each})),
    concat('tenant-', toString(number % ${tenants})),
    ['canary', 'early', 'broad'][1 + intDiv(number, ${tenants}) % 3],
    ['22631.3880', '22631.3810', '22621.3880', '19045.4651', '20348.2582', '17763.6054']
        [1 + intDiv(number, ${tenants} * 3) % 6],
    intDiv(number, ${tenants} * 18) % ${partitions},
    intDiv(number, ${each}),
    ${check_ins},
    now()
FROM numbers(${minutes} * ${each})
