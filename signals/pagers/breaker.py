"""When a route may be tried: its rate, its Retry-After, and a circuit breaker.

One for each route, asked by the dispatcher. Invariant: a channel that is down costs one attempt a pause, however much
waits for it, and is found again within `OPEN_SECONDS_MAX` of coming back.
"""

from typing import Final

FAILURES_TO_OPEN: Final = 5
OPEN_SECONDS: Final = 5.0
OPEN_SECONDS_MAX: Final = 60.0
RETRY_AFTER_SECONDS_MAX: Final = 900.0


class Breaker:
    """Closed while all is well; open after failures in a row; half open for one attempt after each pause."""

    def __init__(self, per_minute: int) -> None:
        """Allow `per_minute` sends a minute, with a burst of a tenth of that, at least two."""
        self._gap_ms = 60_000 / per_minute
        self._burst_ms = max(2.0, per_minute / 10) * self._gap_ms
        self._spent_ms = 0.0
        self._not_before_ms = 0
        self._failures = 0

    @property
    def open(self) -> bool:
        """Whether so many attempts in a row failed that only one a pause is made."""
        return self._failures >= FAILURES_TO_OPEN

    def ready_ms(self, now_ms: int) -> int:
        """Return when the next attempt may be made: now or before, or a time to come."""
        return max(
            self._not_before_ms, int(max(self._spent_ms, now_ms - self._burst_ms) - self._burst_ms + self._gap_ms)
        )

    def spend(self, now_ms: int) -> None:
        """Count an attempt against the rate."""
        self._spent_ms = max(self._spent_ms, now_ms - self._burst_ms) + self._gap_ms

    def succeeded(self) -> None:
        """Close: the channel takes what it is given. A refusal counts too, since somebody answered."""
        self._failures = 0
        self._not_before_ms = 0

    def failed(self, now_ms: int, retry_after_seconds: float | None) -> None:
        """Count a failure, and wait as the channel asked or as failures demand."""
        self._failures += 1
        pause = 0.0
        if self.open:
            pause = min(OPEN_SECONDS * 2.0 ** min(10, self._failures - FAILURES_TO_OPEN), OPEN_SECONDS_MAX)
        if retry_after_seconds is not None:
            pause = max(pause, min(retry_after_seconds, RETRY_AFTER_SECONDS_MAX))
        self._not_before_ms = max(self._not_before_ms, now_ms + int(pause * 1000))
