-- The switch over event time, from its events.
SELECT if(toUnixTimestamp64Milli(watermark) > 0, watermark, decided_at) AS time, state
FROM killswitch FINAL
WHERE rollout = '${rollout}' AND $__timeFilter(if(toUnixTimestamp64Milli(watermark) > 0, watermark, decided_at))
ORDER BY time, number
