-- Events of the switch over time, by what they decided.
SELECT
    $__timeInterval(if(toUnixTimestamp64Milli(watermark) > 0, watermark, decided_at)) AS time, decision, count() AS events
FROM killswitch FINAL
WHERE product IN (${product:singlequote}) AND $__timeFilter(if(toUnixTimestamp64Milli(watermark) > 0, watermark, decided_at))
GROUP BY time, decision
ORDER BY time
