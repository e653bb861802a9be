-- Crash patterns out of the ordinary that belong to no rollout: those that stand, and those that ended in the chosen time.
SELECT
    pattern, state, opened, last, crashes, devices_most, tenants_most, expected, log10_evidence AS evidence,
    log10_needed AS needed, sentence
FROM (SELECT * FROM alerts FINAL ORDER BY log_offset DESC LIMIT 1 BY alert)
WHERE opened <= $__toTime AND (state = 'open' OR $__timeFilter(last))
ORDER BY state = 'open' DESC, last DESC, pattern
LIMIT 50
