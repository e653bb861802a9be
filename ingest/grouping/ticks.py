"""Cutting a device topic's partition into steps: what lies between two advances of the watermark.

Every gateway writes its clock to each partition four times a second. A partition's watermark is the lowest tick among
gateways that may still have something to say. One that ended in order says so; one that merely fell silent is waited
for until its devices are no longer among those heard lately. Passing it sooner would compare what is seen of some
devices with what is not seen of others: they would stay at risk on their old version while their crashes and installs
go unseen, which killed healthy rollouts in simulation. All of this is decided by the records alone, so a partition that
is read again is cut at the same places.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ingest.grouping.cells import RECENT_SECONDS

# As long as a device counts as heard lately.
SILENT_MS = RECENT_SECONDS * 1000
GATEWAYS_MAX = 256

Item = TypeVar("Item")


class Ticks:
    """The newest tick of each gateway, and the watermark they give."""

    def __init__(self) -> None:
        """Start without gateways, at watermark 0."""
        self.newest: dict[str, int] = {}
        self.watermark_ms = 0

    def note(self, gateway: str, at_ms: int, leaving: bool = False) -> bool:
        """Take a tick, which may be the gateway's last; return whether the watermark rose."""
        if gateway not in self.newest and len(self.newest) >= GATEWAYS_MAX:
            del self.newest[min(self.newest, key=self.newest.__getitem__)]
        self.newest[gateway] = max(at_ms, self.newest.get(gateway, 0))
        latest = max(self.newest.values())
        low = min(tick for tick in self.newest.values() if tick >= latest - SILENT_MS)
        if leaving:
            del self.newest[gateway]
        rose = low > self.watermark_ms
        self.watermark_ms = max(low, self.watermark_ms)
        return rose

    def load(self, newest: dict[str, int], watermark_ms: int) -> None:
        """Take over the state that a snapshot kept."""
        self.newest, self.watermark_ms = dict(newest), watermark_ms


@dataclass(slots=True)
class Interval(Generic[Item]):
    """What lies between two advances of the watermark.

    Attributes:
        watermark_ms: the watermark that ended it.
        due_ms: the watermark from which it may be taken: later than `watermark_ms` where one gateway received items
            after the others' last tick.
        offset: the next offset after the tick that ended it.
        ticks: the newest tick of each gateway at its end.
        items: decoded content, in order.
        reports: how many reports it holds.
    """

    watermark_ms: int = 0
    due_ms: int = 0
    offset: int = 0
    ticks: dict[str, int] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    reports: int = 0


class Cutter(Generic[Item]):
    """Collects one source's items and closes an interval at each advance of the watermark."""

    def __init__(self) -> None:
        """Start empty."""
        self.ticks = Ticks()
        self.closed: deque[Interval[Item]] = deque()
        self._open: Interval[Item] = Interval()
        self.pending = 0

    def add(self, item: Item, reports: int, not_before_ms: int = 0) -> None:
        """Take the next item, which holds `reports` reports and waits for a watermark of `not_before_ms`."""
        self._open.items.append(item)
        self._open.reports += reports
        self._open.due_ms = max(self._open.due_ms, not_before_ms)
        self.pending += reports

    def tick(self, gateway: str, at_ms: int, next_offset: int, leaving: bool = False) -> bool:
        """Take a tick; close the open interval if the watermark rose, and say so."""
        if not self.ticks.note(gateway, at_ms, leaving):
            return False
        done = self._open
        done.watermark_ms, done.offset = self.ticks.watermark_ms, next_offset
        # As long as a silent gateway is waited for, others are ahead of it; an item's own word can't hold back longer.
        done.due_ms = min(max(done.due_ms, done.watermark_ms), done.watermark_ms + SILENT_MS)
        done.ticks = dict(self.ticks.newest)
        self.closed.append(done)
        self._open = Interval()
        return True

    def take_until(self, watermark_ms: int) -> Iterator[Interval[Item]]:
        """Yield and remove the closed intervals, in order, that are due by a watermark."""
        while self.closed and self.closed[0].due_ms <= watermark_ms:
            taken = self.closed.popleft()
            self.pending -= taken.reports
            yield taken
