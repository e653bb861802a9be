-- Compatibility: of each version and OS build, crashed devices for each thousand that installed it there.
SELECT
    concat(c.product, ' ', c.version) AS version, c.os_build AS os_build, c.devices AS crashed, i.installed AS installed,
    if(i.installed > 0, 1000 * c.devices / i.installed, NULL) AS crashed_per_thousand
FROM
(
    SELECT vendor, product, version, os_build, uniqMerge(devices) AS devices
    FROM version_crash_minutes FINAL
    WHERE $__timeFilter(minute) AND product IN (${product:singlequote}) AND version IN (${version:singlequote})
        AND ring IN (${ring:singlequote}) AND os_build IN (${os_build:singlequote}) AND tenant IN (${tenant:singlequote})
    GROUP BY vendor, product, version, os_build
) AS c
LEFT JOIN
(
    SELECT vendor, product, version, os_build, uniqMerge(devices) AS installed
    FROM install_minutes FINAL
    WHERE product IN (${product:singlequote}) AND ring IN (${ring:singlequote}) AND tenant IN (${tenant:singlequote})
    GROUP BY vendor, product, version, os_build
) AS i ON c.vendor = i.vendor AND c.product = i.product AND c.version = i.version AND c.os_build = i.os_build
ORDER BY crashed DESC, version, os_build
LIMIT 100
