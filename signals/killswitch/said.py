"""The detector's latest word on each rollout: read again from the log when the time, or a person, lets it bind again.

Beside the signals stage, which notes where each verdict lies. Invariant: the verdict found is the latest that the stage
was given, or a later one, which it is about to be given. Bounded: a rollout that was forgotten waits for its next one.
"""

from detectors.verdict import Verdict, verdict_decoder
from ingest.events import UNREADABLE_ERRORS
from ingest.log.interface import Log, OffsetGoneError, TopicPartition

ROLLOUTS_MAX = 200_000


class LatestVerdicts:
    """Where the latest verdict of each rollout lies in one partition of the verdicts topic."""

    def __init__(self, log: Log, source: TopicPartition) -> None:
        """Take the log and the partition; nothing is read before it is needed."""
        self._log = log
        self._source = source
        self._offsets: dict[str, int] = {}
        self._unread_to = 0

    def begin(self, offset: int) -> None:
        """Say that verdicts before this offset were given to another process: they are looked up where needed."""
        self._unread_to = offset

    def note(self, rollout: str, offset: int) -> None:
        """Remember where a verdict lies; beyond `ROLLOUTS_MAX` the rollout heard of least recently is forgotten."""
        self._offsets.pop(rollout, None)
        self._offsets[rollout] = offset
        if len(self._offsets) > ROLLOUTS_MAX:
            del self._offsets[next(iter(self._offsets))]

    def find(self, rollout: str) -> Verdict | None:
        """Return the latest verdict, or None where there is none.

        Raises:
            LogUnavailableError: the log can't be read.
        """
        if rollout not in self._offsets and self._unread_to:
            self._look_back()
        offset = self._offsets.get(rollout)
        if offset is None:
            return None
        try:
            records = self._log.read(self._source, offset, 1)
        except OffsetGoneError:
            return None
        if not records or records[0].key != rollout.encode() or records[0].value is None:
            # Compaction took it for a later one, which comes by itself.
            return None
        try:
            return verdict_decoder.decode(records[0].value)
        except UNREADABLE_ERRORS:
            return None

    def _look_back(self) -> None:
        """Read the keys of what lay there before the restart, once."""
        offset, found = self._log.bounds(self._source)[0], dict[str, int]()
        while offset < self._unread_to and (records := self._log.read(self._source, offset)):
            for record in records:
                if record.key is not None and record.value is not None and record.offset < self._unread_to:
                    found[record.key.decode(errors="replace")] = record.offset
            offset = records[-1].offset + 1
        self._offsets = found | self._offsets
        self._unread_to = 0
