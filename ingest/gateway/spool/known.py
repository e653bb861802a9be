"""What a gateway must know to start, kept beside the spool for when Kafka is away: rollouts, and its last tick.

Written with each flush that goes to the spool, in the same transaction; of the flushes that go to Kafka directly, the
rollouts at once and the tick now and then. The invariant: it holds every rollout and tick that is in the spool. Of the
others it holds what the disk took; of ticks that went to Kafka directly it may be behind by `TICK_NOTED_MS`.
"""

import logging
from collections.abc import Iterable, Sequence

import msgspec

from ingest.events import Tick, encoder
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry, LogUnavailableError, Record, TopicPartition
from ingest.rollouts import Rollout, rollout_decoder
from ingest.topics import Topics

logger = logging.getLogger(__name__)

KNOWN_TOPIC = "spool.known"
KNOWN = TopicPartition(KNOWN_TOPIC, 0)
TICK_NOTED_MS = 10_000
_TICK_KEY = b"tick"
_TICK_PREFIX = b'{"kind":"tick"'
_tick_decoder = msgspec.json.Decoder(Tick)


class Known:
    """The copy; on the spool's own log, in a compacted topic."""

    def __init__(self, log: EmbeddedLog, topics: Topics) -> None:
        """Use `log`, which has the topic `KNOWN_TOPIC`."""
        self._log = log
        self._rollouts_topic = topics.name("rollouts")
        self._tick_noted_ms = 0

    def entries_of(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return what to append with a flush, in the same transaction."""
        found = [
            Entry(KNOWN_TOPIC, 0, entry.key, entry.value) for entry in entries if entry.topic == self._rollouts_topic
        ]
        # A flush ends with its ticks, all of one time.
        last = entries[-1] if entries else None
        if last is not None and (last.value or b"").startswith(_TICK_PREFIX):
            found.append(Entry(KNOWN_TOPIC, 0, _TICK_KEY, last.value))
        return found

    def note(self, entries: Sequence[Entry]) -> None:
        """Note what a flush says that the log behind has taken."""
        found = self.entries_of(entries)
        if found and found[-1].key == _TICK_KEY:
            at_ms = _tick_decoder.decode(found[-1].value or b"").at_ms
            if 0 <= at_ms - self._tick_noted_ms < TICK_NOTED_MS:
                found.pop()
            else:
                self._tick_noted_ms = at_ms
        self._write(found)

    def keep(self, rollouts: Iterable[Rollout]) -> None:
        """Note rollouts that were learned from the log."""
        self._write([Entry(KNOWN_TOPIC, 0, one.rollout.encode(), encoder.encode(one)) for one in rollouts])

    def _write(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        try:
            self._log.append(entries)
        except LogUnavailableError as error:
            # It is in the log behind: what is lost is only what a start without that log would know.
            logger.warning("nothing can be noted beside the spool now: %s", error)

    def entries(self) -> list[Entry]:
        """Return everything noted, as `restore` takes it."""
        return [Entry(KNOWN_TOPIC, 0, record.key, record.value) for record in self._latest().values()]

    def restore(self, entries: Sequence[Entry]) -> None:
        """Note again what `entries` gave."""
        self._write(entries)

    def read(self) -> tuple[list[tuple[Rollout, int]], int]:
        """Return the rollouts, each with the time when it was noted, and the time of the last tick noted, or 0."""
        latest = self._latest()
        tick = latest.pop(_TICK_KEY, None)
        rollouts = [(rollout_decoder.decode(one.value or b""), one.appended_at_ms) for one in latest.values()]
        return rollouts, _tick_decoder.decode(tick.value or b"").at_ms if tick is not None else 0

    def _latest(self) -> dict[bytes | None, Record]:
        latest: dict[bytes | None, Record] = {}
        offset, end = self._log.bounds(KNOWN)
        while offset < end and (records := self._log.read(KNOWN, offset)):
            offset = records[-1].offset + 1
            latest.update({record.key: record for record in records})
        return latest
