-- What the statistics said of the rollout, by reason: how often, from when to when, and the last sentence.
-- param rollout String: rollout id
SELECT
    verdict, reason, count() AS verdicts, toUnixTimestamp64Milli(min(at)) AS first_ms,
    toUnixTimestamp64Milli(max(at)) AS last_ms, argMax(sentence, (at, log_offset)) AS said
FROM verdicts FINAL
WHERE rollout = {rollout:String}
GROUP BY verdict, reason
ORDER BY first_ms, last_ms, verdict, reason
