"""Dead letters of the sink: what could not be used goes to the topic `deadletter`, bounded.

The invariant: a flood of bad records costs a bounded number of bytes in the log for each block; every one is counted.
"""

import base64
from collections.abc import Sequence

import msgspec

from ingest.log.interface import Entry
from ingest.metrics import Metrics
from ingest.store.rows import DeadLetter

VALUE_BYTES_MAX = 8192
DETAIL_CHARS_MAX = 1024
PER_BLOCK_MAX = 100


class DeadLetterRecord(msgspec.Struct, kw_only=True):
    """One record of the topic, as the sink writes it.

    Attributes:
        stage: who could not use it.
        value: the first bytes of the record, base64.
        value_bytes: how many bytes it had.
        dropped: on the last letter of a block, how many more there were that are only counted.
    """

    schema: int = 1
    stage: str = "store"
    reason: str
    topic: str
    partition: int
    offset: int
    detail: str
    value: str
    value_bytes: int
    at_ms: int
    dropped: int = 0


def entries_of(letters: Sequence[DeadLetter], topic: str, at_ms: int, metrics: Metrics) -> list[Entry]:
    """Return the log entries for dead letters, `PER_BLOCK_MAX` at most, and count all of them.

    Args:
        letters: what could not be used.
        topic: name of the dead-letter topic.
        at_ms: the time now, milliseconds since the epoch.
        metrics: where they are counted by reason.
    """
    entries = []
    for letter in letters:
        metrics.count("deadletters_total", reason=letter.reason)
    named = letters[:PER_BLOCK_MAX]
    for at, letter in enumerate(named):
        record = DeadLetterRecord(
            reason=letter.reason,
            topic=letter.source.topic,
            partition=letter.source.partition,
            offset=letter.offset,
            detail=letter.detail[:DETAIL_CHARS_MAX],
            value=base64.b64encode(letter.value[:VALUE_BYTES_MAX]).decode(),
            value_bytes=len(letter.value),
            at_ms=at_ms,
            dropped=len(letters) - len(named) if at == len(named) - 1 else 0,
        )
        entries.append(Entry(topic, 0, letter.source.topic.encode(), msgspec.json.encode(record)))
    return entries
