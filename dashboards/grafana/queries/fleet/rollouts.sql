-- Rollouts with a verdict in the chosen time: what is decided, and on which numbers.
SELECT
    v.rollout AS rollout, v.product AS product, v.version AS version,
    if(k.decision = '', v.decision, k.decision) AS decision, v.verdict AS verdict,
    v.crashes_exposed AS crashes_exposed, v.crashes_control AS crashes_control, v.exposed AS exposed,
    v.log10_evidence_max AS evidence, v.log10_needed_to_kill AS needed, v.sentence AS sentence
FROM
(
    SELECT * FROM verdicts FINAL
    WHERE $__timeFilter(at) AND product IN (${product:singlequote})
    ORDER BY at DESC, log_offset DESC LIMIT 1 BY rollout
) AS v
LEFT JOIN
(
    SELECT rollout, decision FROM killswitch FINAL WHERE NOT dry_run ORDER BY number DESC LIMIT 1 BY rollout
) AS k ON v.rollout = k.rollout
ORDER BY indexOf(['kill', 'hold', 'unknown', 'proceed'], decision), evidence DESC
LIMIT 50
