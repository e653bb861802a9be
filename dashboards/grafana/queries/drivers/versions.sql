-- Versions side by side: crashed devices, and how many said that they installed it. Who dies at once never says so.
SELECT
    c.product AS product, c.version AS version, c.devices AS crashed, c.boot_loops AS boot_loops,
    i.installed AS installed, if(i.installed > 0, 1000 * c.devices / i.installed, NULL) AS crashed_per_thousand
FROM
(
    SELECT vendor, product, version, uniqMerge(devices) AS devices, sum(boot_loops) AS boot_loops
    FROM version_crash_minutes FINAL
    WHERE $__timeFilter(minute) AND product IN (${product:singlequote}) AND version IN (${version:singlequote})
        AND ring IN (${ring:singlequote}) AND os_build IN (${os_build:singlequote}) AND tenant IN (${tenant:singlequote})
    GROUP BY vendor, product, version
) AS c
LEFT JOIN
(
    SELECT vendor, product, version, uniqMerge(devices) AS installed
    FROM install_minutes FINAL
    WHERE product IN (${product:singlequote}) AND ring IN (${ring:singlequote})
        AND os_build IN (${os_build:singlequote}) AND tenant IN (${tenant:singlequote})
    GROUP BY vendor, product, version
) AS i ON c.vendor = i.vendor AND c.product = i.product AND c.version = i.version
ORDER BY crashed DESC, product, version
LIMIT 50
