"""The kill-switch stream as the simulated rollout system follows it: verified events, read by a thread of its own.

`Subscription` is all that the driver needs. `StreamSubscription` makes one of any iterator of verified switches, which
`signals.client.KillSwitchClient.events` is. The invariant: an event is handed over once, in order; a stream that fails
verification or ends stops the replay instead of looking like a quiet one.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from deploy.replay.client import ReplayError
from signals.events import Switch

# More than any replay brings; beyond it something repeats itself.
EVENTS_MAX = 10_000


class Subscription(Protocol):
    """Kill-switch events of one lane, from the first ever."""

    def received(self, count: int, timeout_seconds: float) -> list[Switch]:
        """Wait until `count` events have come since the lane began; return those not returned before.

        Raises:
            ReplayError: they did not come in time, or the stream failed.
        """
        ...

    def close(self) -> None:
        """End the subscription."""
        ...


class StreamSubscription:
    """Reads an iterator of verified switches in a thread."""

    def __init__(self, events: Callable[[], Iterator[Switch]], close: Callable[[], None]) -> None:
        """Start reading.

        Args:
            events: connects and yields verified events in order, from the lane's first on.
            close: makes that iterator end.
        """
        self._events = events
        self._close = close
        self._changed = threading.Condition()
        self._seen: list[Switch] = []
        self._handed_over = 0
        self._failure: Exception | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._read, name="killswitch-subscription", daemon=True)
        self._thread.start()

    def received(self, count: int, timeout_seconds: float) -> list[Switch]:
        """See `Subscription.received`."""
        with self._changed:
            enough = self._changed.wait_for(lambda: self._failure or len(self._seen) >= count, timeout_seconds)
            if self._failure is not None:
                raise ReplayError(f"the kill-switch stream failed: {self._failure}") from self._failure
            if not enough:
                raise ReplayError(
                    f"{len(self._seen)} of {count} kill-switch events came within {timeout_seconds:g} s: the stream is "
                    "stuck. Is --streams the listener of the same Cordon, and is the lane right?"
                )
            new = self._seen[self._handed_over :]
            self._handed_over = len(self._seen)
            return new

    def close(self) -> None:
        """End the subscription; the thread ends with the connection."""
        self._closed = True
        self._close()
        self._thread.join(timeout=5.0)

    def _read(self) -> None:
        try:
            for switch in self._events():
                self._add(switch)
            if not self._closed:
                self._fail(ReplayError("it ended by itself"))
        except Exception as error:
            # Whatever it was is raised again where the driver waits; a thread's own traceback would stop nothing.
            if not self._closed:
                self._fail(error)

    def _add(self, switch: Switch) -> None:
        with self._changed:
            if len(self._seen) >= EVENTS_MAX:
                raise ReplayError(f"more than {EVENTS_MAX} kill-switch events in one replay")
            self._seen.append(switch)
            self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()


class Pace:
    """Holds a replay to at most `speed` event seconds per wall second; None lets it run as fast as it can."""

    def __init__(
        self,
        speed: float | None,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if speed is not None and not 0 < speed <= 1e6:
            raise ReplayError(f"speed {speed:g}: give event seconds per wall second, more than 0, at most a million")
        self._speed = speed
        self._timer = timer
        self._sleep = sleep
        self._began = timer()

    def wall_seconds(self) -> float:
        """Return the wall time since the pace began."""
        return self._timer() - self._began

    def keep(self, event_seconds: float) -> None:
        """Sleep until so much event time since the beginning is due."""
        if self._speed is not None:
            ahead = event_seconds / self._speed - self.wall_seconds()
            if ahead > 0:
                self._sleep(ahead)
