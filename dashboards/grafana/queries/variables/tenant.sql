-- Tenants that a device checked in for in the chosen time.
SELECT DISTINCT tenant FROM check_in_minutes WHERE $__timeFilter(minute) ORDER BY tenant
