"""Sums over the last so many minutes. Whole numbers only, so that taking out is as exact as putting in."""

from collections import Counter, deque
from collections.abc import Mapping


class Trailing:
    """The sums of several counts over a trailing window.

    Args:
        span_ms: the window's length; at time t it holds what came after t - `span_ms`, up to and with t.
        width: how many counts each entry has.

    Example:
        >>> window = Trailing(span_ms=120_000, width=1)
        >>> [window.push(60_000 * minute, 1) for minute in range(1, 5)]
        [(1,), (2,), (2,), (2,)]
    """

    def __init__(self, span_ms: int, width: int) -> None:
        self._span_ms = span_ms
        self._entries: deque[tuple[int, tuple[int, ...]]] = deque()
        self._sums = [0] * width

    def push(self, at_ms: int, *counts: int) -> tuple[int, ...]:
        """Add counts and return the window's sums.

        Raises:
            ValueError: not `width` counts were given.
        """
        for index, (total, count) in enumerate(zip(self._sums, counts, strict=True)):
            self._sums[index] = total + count
        self._entries.append((at_ms, counts))
        while self._entries[0][0] <= at_ms - self._span_ms:
            _, old = self._entries.popleft()
            for index, count in enumerate(old):
                self._sums[index] -= count
        return tuple(self._sums)


class TrailingNames:
    """The sums of counts by name (a signature, a model) over a trailing window; a name at zero is forgotten.

    Args:
        span_ms: the window's length; at time t it holds what came after t - `span_ms`, up to and with t.
    """

    def __init__(self, span_ms: int) -> None:
        self._span_ms = span_ms
        self._entries: deque[tuple[int, Mapping[str, int]]] = deque()
        self._sums: Counter[str] = Counter()

    def push(self, at_ms: int, counts: Mapping[str, int]) -> Mapping[str, int]:
        """Add counts by name and return the window's sums, which the next call changes."""
        self._sums.update(counts)
        self._entries.append((at_ms, counts))
        while self._entries[0][0] <= at_ms - self._span_ms:
            _, old = self._entries.popleft()
            for name, count in old.items():
                self._sums[name] -= count
                if not self._sums[name]:
                    del self._sums[name]
        return self._sums
