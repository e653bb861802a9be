"""When the next hold, mute or dry run ends by itself: the stage looks once a step, whatever the number of rollouts.

Invariant: a rollout whose standing has an end is named at or after that end, and never before it.
"""

import heapq


class Timers:
    """The next end of each rollout."""

    def __init__(self) -> None:
        """Begin with none."""
        self._ends: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def set(self, rollout: str, ends_ms: int) -> None:
        """Note when a rollout's first end comes; 0: none does."""
        if not ends_ms:
            self._ends.pop(rollout, None)
        elif self._ends.get(rollout) != ends_ms:
            self._ends[rollout] = ends_ms
            heapq.heappush(self._heap, (ends_ms, rollout))

    def due(self, now_ms: int) -> str | None:
        """Return a rollout whose end has come, the earliest first; None where there is none."""
        while self._heap and self._heap[0][0] <= now_ms:
            ends_ms, rollout = self._heap[0]
            if self._ends.get(rollout) == ends_ms:
                return rollout
            heapq.heappop(self._heap)
        return None
