"""The clock every stage is given.

Nothing in Cordon reads the wall clock by itself: the composition root hands a clock to whoever needs one, so a replay
can drive it and a test can hold it still. All times are integer milliseconds since the Unix epoch, UTC.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now_ms(self) -> int:
        """Return the time in milliseconds since the Unix epoch, UTC."""
        ...


class WallClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """Return the machine's time in milliseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1_000_000


class DrivenClock:
    """A clock that moves only when told, and only forward: the in-memory twin, and a replay's gateway clock."""

    def __init__(self, at_ms: int = 0) -> None:
        """Start the clock at `at_ms`."""
        self._at_ms = at_ms

    def now_ms(self) -> int:
        """Return the time last driven to, in milliseconds since the Unix epoch."""
        return self._at_ms

    def drive_to(self, at_ms: int) -> None:
        """Move the clock to `at_ms`.

        Raises:
            ValueError: `at_ms` lies before the clock's time; a watermark must never move back.
        """
        if at_ms < self._at_ms:
            raise ValueError(f"the clock stands at {self._at_ms} ms and cannot go back to {at_ms} ms")
        self._at_ms = at_ms

    def resume_at(self, at_ms: int) -> None:
        """Move the clock to where it stood before a restart, unless it is beyond: what comes next is judged by it."""
        self._at_ms = max(self._at_ms, at_ms)
