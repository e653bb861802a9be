-- The verdicts that each rollout had before.
INSERT INTO verdicts (
    rollout, vendor, product, version, at, verdict, decision, log10_evidence, log10_evidence_max, log10_needed_to_hold,
    log10_needed_to_kill, tolerated_ratio, crashes_exposed, crashes_control, exposed, rate_ratio, rate_ratio_low,
    rate_ratio_high, partition, log_offset, logged_at
)
SELECT
    concat('r-', leftPad(lower(hex(intDiv(number, ${verdicts_each}))), 16, '0')), 'v', 'p', '1',
    toDateTime64(${end} - 30 * (number % ${verdicts_each}), 3), 'watching', 'proceed', 1, 1.2, 3, 6, 1.5, 5, 18, 40000,
    1.3, 0.7, 2.2, 0, number, now64(3)
FROM numbers(${rollouts} * ${verdicts_each})
