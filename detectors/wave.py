"""A wave of crashes among controls: something shakes the fleet that is none of this rollout's doing."""

from typing import Final

_BLOCK_MS: Final = 600_000
_LEAST: Final = 8
_RATIO: Final = 4.0


class ControlWave:
    """Counts control crashes in blocks of ten minutes; a wave is a block far above the mean of those before.

    Example:
        >>> wave = ControlWave()
        >>> for minute in range(0, 600, 60):
        ...     wave.note(minute * 60_000)
        >>> wave.rages(600 * 60_000, origin_ms=0)
        False
        >>> for _ in range(9):
        ...     wave.note(600 * 60_000)
        >>> wave.rages(600 * 60_000, origin_ms=0)
        True
    """

    def __init__(self, state: list[int] | None = None) -> None:
        self._block, self._now, self._before = state if state is not None else [0, 0, 0]

    def note(self, at_ms: int) -> None:
        """Note a control crash."""
        block = at_ms // _BLOCK_MS
        if block != self._block:
            self._block, self._now, self._before = block, 0, self._before + self._now
        self._now += 1

    def rages(self, at_ms: int, origin_ms: int) -> bool:
        """Tell whether the block of `at_ms` is far above the mean since the rollout's origin."""
        if at_ms // _BLOCK_MS != self._block or self._now < _LEAST:
            return False
        blocks = max(1.0, (at_ms - origin_ms) / _BLOCK_MS)
        return self._now > _RATIO * (self._before + 1) / blocks

    @property
    def candidate_ms(self) -> int | None:
        """When the latest block began if it has crashes enough for a wave; None if it has too few to rage."""
        return self._block * _BLOCK_MS if self._now >= _LEAST else None

    @staticmethod
    def over(candidate_ms: int, at_ms: int) -> bool:
        """Tell whether a block that began then is over at `at_ms`."""
        return at_ms // _BLOCK_MS > candidate_ms // _BLOCK_MS

    def snapshot(self) -> list[int]:
        """Return the state: `ControlWave` of it goes on alike."""
        return [self._block, self._now, self._before]
