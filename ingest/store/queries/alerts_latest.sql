-- Every alert on crash patterns that belong to no rollout, as last written: open ones first, then the latest.
-- param limit UInt32: how many
SELECT
    alert, state, pattern, signatures, joined, places, opened, last, crashes, devices_most, tenants_most, expected,
    log10_evidence, log10_needed, tests, times, ended, sentence
FROM (SELECT * FROM alerts FINAL ORDER BY log_offset DESC LIMIT 1 BY alert)
ORDER BY state = 'open' DESC, last DESC, alert
LIMIT {limit:UInt32}
