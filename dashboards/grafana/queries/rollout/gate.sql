-- What holds the gate to the next ring shut: each margin cell, and what is still needed.
SELECT
    JSONExtractString(one, 'name') AS cell, JSONExtractFloat(one, 'share') AS share,
    JSONExtractString(one, 'word') AS word, JSONExtractFloat(one, 'log10_evidence') AS evidence,
    JSONExtractFloat(one, 'device_days') AS device_days,
    JSONExtract(one, 'device_days_needed', 'Nullable(Float64)') AS device_days_needed,
    JSONExtract(one, 'hours_needed', 'Nullable(Float64)') AS hours_needed
FROM
(
    SELECT json FROM verdicts FINAL WHERE rollout = '${rollout}' AND $__timeFilter(at) ORDER BY at DESC, log_offset DESC LIMIT 1
)
ARRAY JOIN JSONExtractArrayRaw(json, 'gate', 'cells') AS one
