-- Each method's own evidence, nobody left out, as log10 of its e-value.
SELECT at AS time, one.1 AS method, one.2 AS evidence
FROM verdicts FINAL
ARRAY JOIN methods AS one
WHERE rollout = '${rollout}' AND $__timeFilter(at)
ORDER BY at, log_offset
