"""What was declared of a rollout, looked up in the rollouts topic: its rings, for pages and change events.

Invariant: bounded, and at most one look at the topic's end a second, however many verdicts come.
"""

from typing import Final

from ingest.clock import Clock
from ingest.events import UNREADABLE_ERRORS
from ingest.log.interface import Log, TopicPartition
from ingest.rollouts import Rollout, rollout_decoder

ROLLOUTS_MAX: Final = 50_000
LOOK_MS: Final = 1000


class DeclaredRollouts:
    """The latest record of each rollout."""

    def __init__(self, log: Log, source: TopicPartition, clock: Clock) -> None:
        """Take the log, the rollouts partition and the clock that paces looks; nothing is read yet."""
        self._log, self._source, self._clock = log, source, clock
        self._offset: int | None = None
        self._looked_ms = 0
        self._found: dict[str, Rollout] = {}

    def find(self, rollout: str) -> Rollout | None:
        """Return what is known of a rollout, at most a second old.

        Raises:
            LogUnavailableError: the log can't be read.
        """
        now_ms = self._clock.now_ms()
        if self._offset is None or not 0 <= now_ms - self._looked_ms < LOOK_MS or rollout not in self._found:
            self._looked_ms = now_ms
            self._catch_up()
        return self._found.get(rollout)

    def _catch_up(self) -> None:
        offset = self._log.bounds(self._source)[0] if self._offset is None else self._offset
        while records := self._log.read(self._source, offset):
            for record in records:
                self._take(record.value)
            offset = records[-1].offset + 1
        self._offset = offset

    def _take(self, value: bytes | None) -> None:
        if value is None:
            return
        try:
            found = rollout_decoder.decode(value)
        except UNREADABLE_ERRORS:
            return
        self._found.pop(found.rollout, None)
        self._found[found.rollout] = found
        while len(self._found) > ROLLOUTS_MAX:
            self._found.pop(next(iter(self._found)))
