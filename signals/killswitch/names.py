"""What a rollout is called, and which rings it declares: looked up in the rollouts topic.

Names are needed when a person acts before any verdict was given, rings for every lease. Invariants: it reads the topic
to its end before it says that a rollout is unknown, so a rollout declared a moment before a command on it is found; and
rings are at most a second old, however many leases are granted.
"""

from ingest.events import UNREADABLE_ERRORS
from ingest.log.interface import Log, TopicPartition
from ingest.rollouts import rollout_decoder

NAMES_MAX = 100_000
LOOK_MS = 1000


class RolloutNames:
    """Vendor, product and version, and rings, by rollout id; reads the topic on demand and keeps its place."""

    def __init__(self, log: Log, source: TopicPartition) -> None:
        """Take the log and the rollouts partition; nothing is read before it is needed."""
        self._log = log
        self._source = source
        self._offset: int | None = None
        self._looked_ms: int | None = None
        self._names: dict[str, tuple[str, str, str]] = {}
        self._rings: dict[str, list[str]] = {}

    def find(self, rollout: str) -> tuple[str, str, str] | None:
        """Return (vendor, product, version), or None if the log has no such rollout.

        Raises:
            LogUnavailableError: the log cannot be read.
        """
        if rollout not in self._names:
            self._catch_up()
        return self._names.get(rollout)

    def rings(self, rollout: str, now_ms: int) -> list[str] | None:
        """Return the rings that a rollout declares, in order, or None if the log has no such rollout.

        Args:
            rollout: its id.
            now_ms: the wall clock, which paces looks at the topic.

        Raises:
            LogUnavailableError: the log cannot be read.
        """
        if self._looked_ms is None or not 0 <= now_ms - self._looked_ms < LOOK_MS:
            self._catch_up()
            self._looked_ms = now_ms
        return self._rings.get(rollout)

    def _catch_up(self) -> None:
        if self._offset is None:
            self._offset = self._log.bounds(self._source)[0]
        while records := self._log.read(self._source, self._offset):
            for record in records:
                self._take(record.value)
            self._offset = records[-1].offset + 1

    def _take(self, value: bytes | None) -> None:
        if value is None:
            return
        try:
            found = rollout_decoder.decode(value)
        except UNREADABLE_ERRORS:
            # Whoever owns the topic dead-letters what it can't read; here it only means a name that is not known.
            return
        self._names[found.rollout] = (found.vendor, found.product, found.version)
        self._rings[found.rollout] = [ring.name for ring in found.rings]
        while len(self._names) > NAMES_MAX:
            gone = next(iter(self._names))
            del self._names[gone], self._rings[gone]
