-- OS builds that a device checked in with in the chosen time.
SELECT DISTINCT os_build FROM check_in_minutes WHERE $__timeFilter(minute) ORDER BY os_build
