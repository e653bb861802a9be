"""The last kill-switch events as they lie in the log, each with its signature checked again.

Behind the kill-switch page and each rollout's. Reads the topic as it is asked for. Invariants: bounded, the oldest go
first; and what is not signed by a known key is shown as not believed, with nothing of what it claims.
"""

import threading
from collections import deque
from dataclasses import dataclass

from ingest.log.interface import Log, LogError, OffsetGoneError, Record, TopicPartition
from ingest.topics import Topics
from signals.events import Switch
from signals.killswitch.signing import PublicKeys, SwitchError
from signals.killswitch.verify import open_event, parse_envelope

KEPT_MAX = 2000
_READ_MAX = 500


@dataclass(frozen=True, slots=True)
class Decision:
    """One event.

    Attributes:
        rollout: the record's key.
        offset: where it lies in its partition.
        appended_ms: when, by the log's clock.
        switch: what it says; None where it is not believed.
        keys: ids of the keys that signed it.
        why_not: why it is not believed; empty where it is.
    """

    rollout: str
    offset: int
    appended_ms: int
    switch: Switch | None
    keys: tuple[str, ...] = ()
    why_not: str = ""


class Decisions:
    """The newest events of one lane; any thread."""

    def __init__(self, log: Log, topics: Topics, keys: PublicKeys) -> None:
        """Take the log, the lane's topics and the keys that events must be signed with; nothing is read yet."""
        self._log, self._keys = log, keys
        self._sources = [TopicPartition(topics.name("killswitch"), part) for part in range(topics.keyed_partitions)]
        self._next: dict[TopicPartition, int] = {}
        self._kept: deque[Decision] = deque(maxlen=KEPT_MAX)
        self._lock = threading.Lock()

    def newest(self, most: int) -> list[Decision]:
        """Return the newest events, newest first.

        Raises:
            LogError: the log can't be read.
        """
        with self._lock:
            self._catch_up()
            kept = list(self._kept)
        kept.sort(key=lambda one: (one.appended_ms, one.offset), reverse=True)
        return kept[:most]

    def of(self, rollout: str) -> list[Decision]:
        """Return a rollout's events among those kept, newest first; raises like `newest`."""
        return [one for one in self.newest(KEPT_MAX) if one.rollout == rollout]

    def _catch_up(self) -> None:
        for source in self._sources:
            first, end = self._log.bounds(source)
            offset = self._next.get(source, max(first, end - KEPT_MAX))
            while offset < end:
                try:
                    records = self._log.read(source, offset, _READ_MAX)
                except OffsetGoneError:
                    offset = self._log.bounds(source)[0]
                    continue
                if not records:
                    break
                self._kept.extend(self._decision(record) for record in records if record.value is not None)
                offset = records[-1].offset + 1
                self._next[source] = offset

    def _decision(self, record: Record) -> Decision:
        rollout = (record.key or b"").decode(errors="replace")
        try:
            envelope = parse_envelope(record.value or b"")
            event = open_event(envelope, self._keys)
        except SwitchError as error:
            return Decision(rollout, record.offset, record.appended_at_ms, None, why_not=str(error))
        keys = tuple(signature.keyid for signature in envelope.signatures)
        if event.switch.rollout != rollout:
            why = f"it is of rollout {event.switch.rollout} and lies under another's name"
            return Decision(rollout, record.offset, record.appended_at_ms, None, why_not=why)
        return Decision(rollout, record.offset, record.appended_at_ms, event.switch, keys)


def read_or_none(decisions: Decisions, rollout: str | None, most: int) -> list[Decision] | None:
    """Return the newest events of a rollout, or of all; None while the log can't be read."""
    try:
        found = decisions.newest(most) if rollout is None else decisions.of(rollout)
    except LogError:
        return None
    return found[:most]
