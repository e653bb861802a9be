"""A token bucket per tenant, by the injected clock.

The invariant: over any stretch of t seconds a tenant takes at most `per_second * (t + burst_seconds)` reports. A clock
that goes back gives nothing and takes nothing.
"""

from ingest.clock import Clock

BURST_SECONDS = 10
_TENANTS_MAX = 10_000


class Throttle:
    """Reports a tenant may still post."""

    def __init__(self, clock: Clock, reports_per_second_max: int) -> None:
        """Allow each tenant `reports_per_second_max` with a burst of ten seconds' worth."""
        self._clock = clock
        self._per_second = reports_per_second_max
        self._burst = float(reports_per_second_max * BURST_SECONDS)
        self._buckets: dict[str, tuple[float, int]] = {}

    def empty(self, tenant: str) -> bool:
        """Tell whether not a single report of the tenant could be taken."""
        bucket = self._buckets.get(tenant)
        return bucket is not None and bucket[0] < 1 and self._level(tenant, self._clock.now_ms()) < 1

    def take(self, tenant: str, wanted: int) -> int:
        """Take up to `wanted` reports from the tenant's bucket and return how many were there."""
        now_ms = self._clock.now_ms()
        level = self._level(tenant, now_ms)
        granted = min(wanted, int(level))
        at_ms = self._buckets.pop(tenant, (0.0, now_ms))[1]
        if len(self._buckets) >= _TENANTS_MAX:
            # The one unused for longest goes; if it comes back it finds a full bucket, which errs on the sender's side.
            del self._buckets[next(iter(self._buckets))]
        self._buckets[tenant] = (level - granted, max(now_ms, at_ms))
        return granted

    def _level(self, tenant: str, now_ms: int) -> float:
        level, at_ms = self._buckets.get(tenant, (self._burst, now_ms))
        return min(self._burst, level + max(0, now_ms - at_ms) * self._per_second / 1000)

    def retry_after_seconds(self, wanted: int) -> int:
        """Return after how many seconds an empty bucket holds `wanted` reports, one at least and ten at most."""
        return max(1, min(BURST_SECONDS, -(-wanted // self._per_second)))
