"""How far the signals stage has come in its inputs, and what became of the last commands: its place record.

Invariant: an offset never goes back, and a command that was seen is not obeyed again while it is among the last 512.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from ingest.events import encoder
from ingest.log.interface import Entry, TopicPartition
from signals.events import PendingRelease, SwitchPlace

PLACE_PREFIX = b"@place/"
COMMANDS_REMEMBERED = 512


class StagePlace:
    """The place of one keyed partition."""

    def __init__(self, words: Mapping[TopicPartition, str], state: TopicPartition) -> None:
        """Begin with nothing read.

        Args:
            words: the topic's word of each partition whose offset is kept.
            state: the partition that holds the place record.
        """
        self._words = dict(words)
        self._state = state
        self._commands: OrderedDict[str, str] = OrderedDict()
        self._next: dict[TopicPartition, int] = {}
        self.written: dict[TopicPartition, int] = {}

    def next_of(self, source: TopicPartition) -> int | None:
        """Return the offset to read next, where it is known."""
        return self._next.get(source)

    def move(self, source: TopicPartition, offset: int) -> None:
        """Note the offset to read next."""
        self._next[source] = offset

    def moved(self, sources: Sequence[TopicPartition]) -> bool:
        """Tell whether an input was read beyond what was handed over last."""
        return any(self.written.get(source) != self._next.get(source) for source in sources)

    def handled(self, command_id: str) -> bool:
        """Tell whether a command was seen."""
        return command_id in self._commands

    def remember(self, command_id: str, result: str) -> None:
        """Note what became of a command."""
        self._commands[command_id] = result
        while len(self._commands) > COMMANDS_REMEMBERED:
            self._commands.popitem(last=False)

    def reach(self, offsets: Mapping[str, int]) -> None:
        """Take the offsets of a state record."""
        for source, word in self._words.items():
            offset = offsets.get(f"{word}/{source.partition}")
            if offset is not None:
                self._next[source] = max(offset, self._next.get(source, 0))

    def load(self, place: SwitchPlace) -> None:
        """Take a place record."""
        self.reach(place.offsets)
        for command_id, result in place.commands:
            self.remember(command_id, result)

    def offsets(self) -> dict[str, int]:
        """Return the offsets for a state record that is handed over now."""
        self.written = dict(self._next)
        return {f"{self._words[source]}/{source.partition}": offset for source, offset in self._next.items()}

    def entry(self, pending: list[PendingRelease], audit: tuple[int, str], audit_offset: int) -> Entry:
        """Return the place record."""
        offsets = self.offsets() | {f"audit/{self._state.partition}": audit_offset}
        place = SwitchPlace(offsets=offsets, commands=list(self._commands.items()), pending=pending, audit=audit)
        return Entry(*self._state, PLACE_PREFIX + str(self._state.partition).encode(), encoder.encode(place))
