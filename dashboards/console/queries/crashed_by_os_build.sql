-- Devices that crashed, by time and OS build: the eight builds with most.
-- param from DateTime: begin, UTC
-- param to DateTime: end, UTC
-- param step UInt32: seconds that a point stands for
SELECT intDiv(toUnixTimestamp(minute), {step:UInt32}) * {step:UInt32} AS t, os_build, uniqMerge(devices) AS crashed
FROM crash_minutes FINAL
WHERE minute >= {from:DateTime} AND minute < {to:DateTime} AND os_build IN
(
    SELECT os_build FROM crash_minutes FINAL
    WHERE minute >= {from:DateTime} AND minute < {to:DateTime}
    GROUP BY os_build ORDER BY sum(crashes) DESC, os_build LIMIT 8
)
GROUP BY t, os_build
ORDER BY t, os_build
LIMIT 20000
