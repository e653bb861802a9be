"""What a gateway reads when it starts: known rollouts, and the last tick of its own.

Both keep a restart invisible: no version is discovered twice, and a clock that was set back while the gateway was down
cannot take a watermark back. Where Kafka is away they come from the copy beside the spool.
"""

import logging
from dataclasses import dataclass, field

import msgspec

from ingest.events import UNREADABLE_ERRORS, Tick
from ingest.gateway.merge import join
from ingest.gateway.spool.log import SpoolingLog
from ingest.log.interface import Log, LogUnavailableError, Record, TopicPartition
from ingest.rollouts import Rollout, rollout_decoder
from ingest.topics import Topics

logger = logging.getLogger(__name__)

# Ticks come several times a second, so the last one is nearly always among a partition's last few records.
LOOK_BACK_RECORDS_MAX = 4096
_FIRST_STEP_RECORDS = 64
_TICK_PREFIX = b'{"kind":"tick"'
_tick_decoder = msgspec.json.Decoder(Tick)


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a gateway knows as it starts.

    Attributes:
        rollouts: each with the time of its record, in milliseconds.
        last_tick_ms: its own last tick, or 0.
        next_offset: where the rollouts topic is read on.
        whole: it came from the log; else from the copy beside the spool, and the log is to be read when it is back.
        unsaid: those of which the log's last record does not say all: two gateways wrote at once, and the one that
            would have mended it ended before it could.
    """

    rollouts: list[tuple[Rollout, int]]
    last_tick_ms: int
    next_offset: int
    whole: bool
    unsaid: list[Rollout] = field(default_factory=list)


def recall(log: Log, topics: Topics, gateway: str, spool: SpoolingLog | None) -> Recalled:
    """Return what the log has, together with what the copy beside the spool has; the latter alone if it must be.

    What is still in the spool is in the copy only.

    Raises:
        LogError: the log cannot be read, and there is no spool.
    """
    noted, noted_tick_ms = spool.spool.known.read() if spool is not None else ([], 0)
    try:
        found, said, next_offset = read_rollouts(log, topics)
        last_tick_ms = read_last_tick(log, topics, gateway)
    except LogUnavailableError as error:
        if spool is None:
            raise
        logger.warning("starting without the log, by what was noted beside the spool: %s", error)
        return Recalled(noted, noted_tick_ms, 0, whole=False)
    joined = {rollout.rollout: (rollout, at_ms) for rollout, at_ms in noted}
    for rollout, at_ms in found.values():
        own = joined.get(rollout.rollout)
        joined[rollout.rollout] = (rollout if own is None else join(own[0], rollout), at_ms)
    if spool is not None:
        own_words = {rollout.rollout: rollout for rollout, _ in noted}
        spool.spool.known.keep(rollout for rollout, _ in joined.values() if own_words.get(rollout.rollout) != rollout)
    unsaid = [rollout for rollout, _ in joined.values() if rollout != said.get(rollout.rollout)]
    return Recalled(list(joined.values()), max(last_tick_ms, noted_tick_ms), next_offset, whole=True, unsaid=unsaid)


def read_rollouts(log: Log, topics: Topics) -> tuple[dict[str, tuple[Rollout, int]], dict[str, Rollout], int]:
    """Read the rollouts topic to its end.

    Returns:
        By id, what all records together say of a rollout with the log's time of the last append in milliseconds; the
        last record of each; and the topic's end.
    """
    source = TopicPartition(topics.name("rollouts"), 0)
    first, end = log.bounds(source)
    joined: dict[str, tuple[Rollout, int]] = {}
    last: dict[str, Rollout] = {}
    for record in _between(log, source, first, end):
        rollout = decoded(record)
        if rollout is None:
            continue
        known = last.get(rollout.rollout)
        last[rollout.rollout] = rollout
        # A record from before words were dated replaces the one before it.
        if known is not None and rollout.origin_said_ms:
            rollout = join(joined[rollout.rollout][0], rollout)
        joined[rollout.rollout] = rollout, record.appended_at_ms
    return joined, last, end


def decoded(record: Record) -> Rollout | None:
    """Return the rollout of a record; None for a tombstone, or where the record is not one."""
    if record.value is None:
        return None
    try:
        return rollout_decoder.decode(record.value)
    except UNREADABLE_ERRORS as error:
        logger.error("record %d of the rollouts topic is no rollout: %s", record.offset, error)
        return None


def read_last_tick(log: Log, topics: Topics, gateway: str) -> int:
    """Return the time of this gateway's newest tick near the end of any device partition, or 0."""
    sources = [
        TopicPartition(topics.name(word), partition)
        for word in ("activity", "crashes")
        for partition in range(topics.device_partitions)
    ]
    return max(_last_tick_of(log, source, gateway) for source in sources)


def _last_tick_of(log: Log, source: TopicPartition, gateway: str) -> int:
    """Search backwards in growing steps."""
    first, end = log.bounds(source)
    upper, step = end, _FIRST_STEP_RECORDS
    while upper > first and end - upper < LOOK_BACK_RECORDS_MAX:
        lower = max(first, upper - step)
        ticks = [
            _tick_decoder.decode(record.value)
            for record in _between(log, source, lower, upper)
            if record.value is not None and record.value.startswith(_TICK_PREFIX)
        ]
        own = [tick.at_ms for tick in ticks if tick.gateway == gateway]
        if own:
            return max(own)
        upper, step = lower, step * 4
    return 0


def _between(log: Log, source: TopicPartition, offset: int, end: int) -> list[Record]:
    """Return the records of [offset, end); holes left by compaction are passed over."""
    found: list[Record] = []
    while offset < end:
        records = [record for record in log.read(source, offset) if record.offset < end]
        if not records:
            break
        found.extend(records)
        offset = records[-1].offset + 1
    return found
