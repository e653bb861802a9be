-- From the first exposed crash to the kill, by event time.
SELECT
    k.product AS product, k.version AS version, k.killed_at AS killed_at,
    (toUnixTimestamp64Milli(k.killed_at) - f.first_crash_ms) / 1000 AS seconds_to_kill, k.evidence AS evidence
FROM
(
    SELECT rollout, product, version, min(watermark) AS killed_at, argMin(log10_evidence, number) AS evidence
    FROM killswitch FINAL
    WHERE decision = 'kill' AND cause = 'detector' AND product IN (${product:singlequote}) AND $__timeFilter(watermark)
    GROUP BY rollout, product, version
) AS k
INNER JOIN
(
    SELECT rollout, min(JSONExtractInt(json, 'evidence', 'first_crash_ms')) AS first_crash_ms
    FROM verdicts FINAL
    WHERE JSONExtractInt(json, 'evidence', 'first_crash_ms') > 0
    GROUP BY rollout
) AS f ON k.rollout = f.rollout
ORDER BY killed_at DESC
LIMIT 50
