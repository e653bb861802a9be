-- How devices of a rollout came back, by minute and ring: silent, looping and recovered devices.
-- param rollout String: rollout id
SELECT
    minute, part.1 AS ring, sum(part.3) AS silent, sum(part.4) AS looping, sum(part.5) AS recovered
FROM recoveries FINAL
ARRAY JOIN parts AS part
WHERE rollout = {rollout:String}
GROUP BY minute, ring
ORDER BY minute, ring
