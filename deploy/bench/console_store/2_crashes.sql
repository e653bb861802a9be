-- Crashes: half of them spread over the day, half in the twenty minutes of an incident an hour ago.
INSERT INTO crashes (
    kind, device, seq, at, received_at, boot_id, boot_at, boots, tenant, os_build, form_factor, model, ring, site, bugcheck,
    module, signature_module, signature, versions, gateway, partition, log_offset, log_index, block
)
SELECT
    if(number % 3 = 0, 'boot_loop', 'bsod'), hex(sipHash64(number)), number,
    toDateTime64(
        ${end} - if(number % 2 = 1, intDiv(number * ${minutes} * 60, ${crashes}), 3600 + intDiv(number, 2) % 1200), 3
    ) AS moment,
    moment, 'b', moment, 1, concat('tenant-', toString(number % ${tenants})),
    ['22631.3880', '22631.3810', '22621.3880', '19045.4651', '20348.2582', '17763.6054'][1 + intDiv(number, 3) % 6],
    'laptop', 'model-1', ['canary', 'early', 'broad'][1 + number % 3], 's', 80, 'x.sys',
    concat('module-', toString(number % 40)), concat('module-', toString(number % 40), '|0x50'),
    [('vendor-1', 'driver-1', '31.0.1.7', NULL)], 'g', number % ${partitions}, number, 0, intDiv(number, 5000)
FROM numbers(${crashes})
