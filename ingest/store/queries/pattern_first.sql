-- From when on the store has reports, but for the hundredth of them whose clocks are furthest behind: milliseconds since
-- the epoch, 0 for an empty store.
SELECT if(count() = 0, 0, toInt64(quantileExact(0.01)(toUnixTimestamp64Milli(at)))) AS first_ms
FROM (SELECT at FROM crashes FINAL UNION ALL SELECT at FROM installs FINAL)
