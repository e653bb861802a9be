"""When to trust a log again that was slow: hysteresis, so that a slow Kafka does not make the gateway alternate.

Each return to a log that is still slow costs an append its whole time-out, with every post in it waiting. So the spool
keeps its turn until the drain has been quick for a while, and the while doubles with each return that was too early.
"""

from collections.abc import Callable

CALM_SECONDS_MIN = 5.0
CALM_SECONDS_MAX = 60.0
# What took longer than this share of the time allowed is slow already.
QUICK_SHARE = 0.5


class Calm:
    """True once appends have been quick for long enough. Used by two threads; each of its steps is one assignment."""

    def __init__(self, after_seconds: float, monotonic: Callable[[], float]) -> None:
        """Judge by `after_seconds`, which an append may take, and by a clock in seconds."""
        self._quick_seconds = after_seconds * QUICK_SHARE
        self._monotonic = monotonic
        self._needed_seconds = CALM_SECONDS_MIN
        self._disturbed_at = float("-inf")
        self._trusted_at = float("-inf")

    def disturbed(self) -> None:
        """Note an append that failed or was slow."""
        now = self._monotonic()
        if self._trusted_at > self._disturbed_at:
            # It was trusted since the last disturbance: was that too early?
            early = now - self._trusted_at < CALM_SECONDS_MAX
            doubled = min(self._needed_seconds * 2, CALM_SECONDS_MAX)
            self._needed_seconds = doubled if early else CALM_SECONDS_MIN
        self._disturbed_at = now

    def took(self, seconds: float) -> None:
        """Note how long an append took that succeeded."""
        if seconds > self._quick_seconds:
            self.disturbed()

    def __bool__(self) -> bool:
        """Tell whether the log may be trusted; the caller then does trust it."""
        now = self._monotonic()
        if now - self._disturbed_at < self._needed_seconds:
            return False
        self._trusted_at = now
        return True
