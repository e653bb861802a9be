-- What holds the gate to the next ring shut: each margin cell, and what is still needed.
SELECT
    JSONExtractString(cell, 'name') AS cell, JSONExtractFloat(cell, 'share') AS share,
    JSONExtractString(cell, 'word') AS word, JSONExtractFloat(cell, 'log10_evidence') AS evidence,
    JSONExtractFloat(cell, 'device_days') AS device_days,
    JSONExtract(cell, 'device_days_needed', 'Nullable(Float64)') AS device_days_needed,
    JSONExtract(cell, 'hours_needed', 'Nullable(Float64)') AS hours_needed
FROM
(
    SELECT json FROM verdicts FINAL WHERE rollout = '${rollout}' AND $__timeFilter(at) ORDER BY at DESC, log_offset DESC LIMIT 1
)
ARRAY JOIN JSONExtractArrayRaw(json, 'gate', 'cells') AS cell
