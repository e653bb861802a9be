"""How far an owner of a share of the work has come: its word on `cordon.progress.v1`.

Written by each owner's driver about once a second (and after each step in a driven lane), read by whoever must know
that nothing stands still: the watch for blindness, and a replay that waits for the stages behind the gateway. A word is
no evidence and no state: losing one costs nothing, the next replaces it.
"""

import msgspec

from ingest.events import SCHEMA_WRITTEN


class OwnerWord(msgspec.Struct, kw_only=True, tag_field="kind", tag="progress"):
    """One record of `cordon.progress.v1`, keyed by `owner`.

    Attributes:
        owner: the share's name, that of its fence: `grouping/3`, `detection/0`, `signals/1`, `store/2`.
        worker: the process that owns it.
        generation: the fence's epoch; a lower one than seen is a stale owner's word.
        at_ms: the worker's wall clock.
        reached_ms: everything received before this time has been through this owner, outputs appended; 0: not told.
        positions: next offset by `topic/partition` of its inputs; everything before it is applied and flushed.
        said: the offset behind the newest record it appended, by `topic/partition` of its outputs.
        lag_records: records of its inputs it has not read.
        newest_ms: the log's time of append of the newest record it read; 0: none yet.
        leaving: the owner ended in order, and says so.
    """

    schema: int = SCHEMA_WRITTEN
    owner: str
    worker: str
    generation: int
    at_ms: int
    reached_ms: int = 0
    positions: dict[str, int] = {}
    said: dict[str, int] = {}
    lag_records: int = 0
    newest_ms: int = 0
    leaving: bool = False


progress_decoder = msgspec.json.Decoder(OwnerWord)


def place_name(topic: str, partition: int) -> str:
    """Return the name of a partition in `positions` and `said`."""
    return f"{topic}/{partition}"
