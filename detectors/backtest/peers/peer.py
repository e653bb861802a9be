"""What every peer is: a published rule that watches an update's minutes and says when it would have acted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from detectors.backtest.trace import Minute

Decision = Literal["hold", "kill"]

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Alarm:
    """One moment at which a peer acts.

    Attributes:
        at_ms: event time: the end of the minute after which the rule could say so.
        decision: `kill` where the rule fails the rollout or raises its only or gravest alert, `hold` for a lesser one.
        sentence: why, with its numbers.
    """

    at_ms: int
    decision: Decision
    sentence: str


class Peer(Protocol):
    """A published rule with its published defaults.

    Attributes:
        name: short and unique among the peers, in lower case.
        rule: the rule in one sentence.
        source: the publication, and which of the numbers are its defaults.
        blind_to: what it cannot see, in one sentence.
    """

    name: str
    rule: str
    source: str
    blind_to: str

    def watch(self, minutes: Sequence[Minute], began_ms: int) -> list[Alarm]:
        """Return all alarms in order of time, as the rule would raise them if nobody acted on them.

        The same minutes give the same alarms, a minute's alarms depend on it and earlier ones only, and a peer keeps
        nothing from one call to the next.

        Args:
            minutes: what was seen of one update, ascending in time.
            began_ms: when its first push began; minutes that end before are left out.

        Raises:
            ValueError: the minutes do not ascend.
        """
        ...


def since(minutes: Sequence[Minute], began_ms: int) -> Iterator[Minute]:
    """Yield the minutes that end after `began_ms`.

    Raises:
        ValueError: the minutes do not ascend.
    """
    last: int | None = None
    for minute in minutes:
        if last is not None and minute.at_ms <= last:
            raise ValueError(f"minute {minute.at_ms} follows {last}: give the minutes in ascending order, each once")
        last = minute.at_ms
        if minute.at_ms > began_ms:
            yield minute


class Ticks:
    """Says when a rule that looks every `every_ms` looks again; a gap in the minutes delays a look, never repeats it.

    Args:
        began_ms: looks are whole multiples of `every_ms` after it.
        every_ms: the time between two looks.
    """

    def __init__(self, began_ms: int, every_ms: int) -> None:
        self._began_ms = began_ms
        self._every_ms = every_ms
        self._looks = 0

    def due(self, at_ms: int) -> bool:
        """Return whether a look falls between the last call's time (or the beginning) and `at_ms`."""
        looks = (at_ms - self._began_ms) // self._every_ms
        due = looks > self._looks
        self._looks = max(self._looks, looks)
        return due
