"""When a rollout's minute begins: at a second of its own, so that what is done once a minute is spread over all of it.

Used by grouping for full windows, and by detection for what it says once a minute. The second is a hash of the
rollout's id: the same in every partition, in every process and after every restart.
"""

import zlib
from typing import Final

_MINUTE_S: Final = 60


def offset_seconds(rollout: str) -> int:
    """Return the second, 0 to 59, of every minute of event time at which a rollout's own minute begins.

    Example:
        >>> offset_seconds("r-0011"), offset_seconds("r-0012")
        (5, 55)
    """
    return zlib.crc32(rollout.encode()) % _MINUTE_S


def minute_of(at_s: int, offset_s: int) -> int:
    """Return the beginning of the minute that `at_s` lies in, of a rollout whose minutes begin at `offset_s`.

    Example:
        >>> minute_of(130, 20), minute_of(139, 20), minute_of(140, 20)
        (80, 80, 140)
    """
    return (at_s - offset_s) // _MINUTE_S * _MINUTE_S + offset_s
