-- Rings that a device checked in with in the chosen time.
SELECT DISTINCT ring FROM check_in_minutes WHERE $__timeFilter(minute) ORDER BY ring
