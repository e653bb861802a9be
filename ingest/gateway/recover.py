"""What a gateway reads from the log when it starts: known rollouts, and the last tick of its own.

Both keep a restart invisible: no version is discovered twice, and a clock that was set back while the gateway was down
cannot take a watermark back.
"""

import msgspec

from ingest.events import Tick
from ingest.log.interface import Log, Record, TopicPartition
from ingest.rollouts import Rollout, rollout_decoder
from ingest.topics import Topics

# Ticks come several times a second, so the last one is nearly always among a partition's last few records.
LOOK_BACK_RECORDS_MAX = 4096
_FIRST_STEP_RECORDS = 64
_TICK_PREFIX = b'{"kind":"tick"'
_tick_decoder = msgspec.json.Decoder(Tick)


def read_rollouts(log: Log, topics: Topics) -> list[tuple[Rollout, int]]:
    """Return the latest word on every rollout, with the log's time of append in milliseconds."""
    source = TopicPartition(topics.name("rollouts"), 0)
    latest: dict[bytes | None, tuple[Rollout, int]] = {}
    for record in _between(log, source, *log.bounds(source)):
        if record.value is None:
            latest.pop(record.key, None)
        else:
            latest[record.key] = (rollout_decoder.decode(record.value), record.appended_at_ms)
    return list(latest.values())


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
