-- What the kill switch decided on the rollout, by the event time it held for.
SELECT
    if(toUnixTimestamp64Milli(watermark) > 0, watermark, decided_at) AS time,
    concat(decision, ': ', sentence) AS text,
    decision AS tags
FROM killswitch FINAL
WHERE rollout = '${rollout}' AND $__timeFilter(if(toUnixTimestamp64Milli(watermark) > 0, watermark, decided_at))
ORDER BY time
LIMIT 200
