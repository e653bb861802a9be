"""Where a subscriber is: the next offset of each partition, as an event id such as `0:12,1:5`.

Pure text work between the hub and Last-Event-ID. Invariant: a cursor that does not name exactly the stream's partitions
is an error, never a default.
"""

import re
from collections.abc import Iterable, Mapping

_CURSOR = re.compile(r"[0-9]{1,4}:[0-9]{1,18}(,[0-9]{1,4}:[0-9]{1,18}){0,1023}")


class CursorError(Exception):
    """A Last-Event-ID is not one that this stream gave."""


def encode_cursor(offsets: Mapping[int, int]) -> str:
    """Return the cursor of a place: `offsets` is the next offset by partition."""
    return ",".join(f"{partition}:{offsets[partition]}" for partition in sorted(offsets))


def decode_cursor(text: str, partitions: Iterable[int]) -> dict[int, int]:
    """Return the next offset by partition.

    Raises:
        CursorError: the text is no cursor, or is one of a stream with other partitions.
    """
    if not _CURSOR.fullmatch(text):
        raise CursorError("Last-Event-ID is not one that this stream gave: leave it out and use ?from=latest or start")
    pairs = [pair.split(":") for pair in text.split(",")]
    offsets = {int(partition): int(offset) for partition, offset in pairs}
    if len(pairs) != len(offsets) or set(offsets) != set(partitions):
        raise CursorError("Last-Event-ID names other partitions than this stream has: use ?from=start to read it again")
    return offsets
