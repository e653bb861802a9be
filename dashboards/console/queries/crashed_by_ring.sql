-- Devices that crashed, by time and ring.
-- param from DateTime: begin, UTC
-- param to DateTime: end, UTC
-- param step UInt32: seconds that a point stands for
SELECT intDiv(toUnixTimestamp(minute), {step:UInt32}) * {step:UInt32} AS t, ring, uniqMerge(devices) AS crashed
FROM crash_minutes FINAL
WHERE minute >= {from:DateTime} AND minute < {to:DateTime}
GROUP BY t, ring
ORDER BY t, ring
LIMIT 20000
