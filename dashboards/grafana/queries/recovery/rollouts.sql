-- Every rollout with devices that crashed or fell silent in the chosen time, those with most of them away first.
SELECT rollout, product, version, minute, recovered, looping, silent, recovered / greatest(1, recovered + looping + silent) AS back
FROM
(
    SELECT * FROM recoveries FINAL WHERE $__timeFilter(minute) ORDER BY minute DESC, log_offset DESC LIMIT 1 BY rollout
)
ORDER BY looping + silent DESC, rollout
LIMIT 50
