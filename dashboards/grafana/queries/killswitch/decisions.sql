-- Every decision in the chosen time, newest first.
SELECT
    if(toUnixTimestamp64Milli(watermark) > 0, watermark, decided_at) AS held_for, decided_at, product, version, rollout, number,
    state, decision, cause, name, dry_run, sentence
FROM killswitch FINAL
WHERE product IN (${product:singlequote}) AND $__timeFilter(if(toUnixTimestamp64Milli(watermark) > 0, watermark, decided_at))
ORDER BY decided_at DESC, rollout, number DESC
LIMIT 200
