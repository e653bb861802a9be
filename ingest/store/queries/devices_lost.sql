-- Devices that crashed on a rollout's version, per minute of their first crash, and the running total.
-- Reads raw crashes: exact, for as long as those are kept.
-- param rollout String: rollout id
SELECT minute, devices, sum(devices) OVER (ORDER BY minute) AS devices_total
FROM
(
    SELECT toStartOfMinute(first_at) AS minute, count() AS devices
    FROM
    (
        SELECT device, min(at) AS first_at
        FROM crashes FINAL
        WHERE arrayExists(
            v -> (v.vendor, v.product, v.version) IN
                (SELECT vendor, product, version FROM rollouts WHERE rollout = {rollout:String}),
            versions)
        GROUP BY device
    )
    GROUP BY minute
)
ORDER BY minute
