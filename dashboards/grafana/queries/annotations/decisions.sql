-- What the kill switch decided, by the event time it held for.
SELECT
    if(toUnixTimestamp64Milli(watermark) > 0, watermark, decided_at) AS time,
    concat(decision, ': ', product, ' ', version, '. ', sentence) AS text,
    decision AS tags
FROM killswitch FINAL
WHERE decision IN ('hold', 'kill') AND product IN (${product:singlequote})
    AND $__timeFilter(if(toUnixTimestamp64Milli(watermark) > 0, watermark, decided_at))
ORDER BY time
LIMIT 200
