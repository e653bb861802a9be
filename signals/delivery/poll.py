"""Long poll: the events behind a cursor, or the next ones, for clients that can't hold a stream open.

Between the log, the hub that tells when there is something new, and `GET /v1/killswitch/events`. Invariants: the cursor
of a page lies right behind its last event, so asking there misses nothing and repeats nothing, whatever was filtered
out; and a page has as many events as were asked for at most, and waits as long at most.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingest.log.interface import Log, Record, TopicPartition
from signals.delivery.cursor import encode_cursor
from signals.delivery.hub import StreamHub, Subscriber
from signals.delivery.wanted import is_drill_envelope

_READ_RECORDS_MAX = 100
_READERS_MAX = 8
# A poll that does not wait still reads on for so long, past what it does not want.
_READ_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events and the place right behind them.

    Attributes:
        events: the envelopes, as they lie in the log, in order.
        next: the cursor to go on from.
    """

    events: list[bytes]
    next: str


class EventPolls:
    """Serves polls of one hub, on its event loop."""

    def __init__(self, log: Log, topic: str, hub: StreamHub) -> None:
        """Take the log and topic that are read, and the hub that says how far it goes."""
        self._log, self._topic, self._hub = log, topic, hub
        self._readers = asyncio.Semaphore(_READERS_MAX)

    async def page(
        self, subscriber: Subscriber, start: Mapping[int, int], limit: int, wait_seconds: float
    ) -> EventPage:
        """Return what lies behind `start`, waiting for something while there is nothing.

        Args:
            subscriber: one that the hub has admitted; it says which events are wanted.
            start: the next offset by partition.
            limit: how many events, at most.
            wait_seconds: how long to wait for the first one; the page is empty when it does not come.

        Raises:
            LogError: the log can't be read.
        """
        clock = asyncio.get_running_loop().time
        begun = clock()
        place, events = dict(start), list[bytes]()
        while not self._hub.closed:
            behind = self._behind(place)
            for partition in behind:
                events += await self._read(subscriber, place, partition, limit - len(events))
                if len(events) >= limit:
                    return EventPage(events, encode_cursor(place))
            if behind:
                if clock() - begun < max(wait_seconds, _READ_SECONDS):
                    continue
                break
            left = wait_seconds - (clock() - begun)
            if events or left <= 0 or not await self._changed(subscriber, left):
                break
        return EventPage(events, encode_cursor(place))

    def _behind(self, place: Mapping[int, int]) -> list[int]:
        return [partition for partition, offset in place.items() if offset < self._hub.cursor[partition]]

    async def _changed(self, subscriber: Subscriber, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._hub.changed(subscriber), seconds)
        except TimeoutError:
            return False
        return True

    async def _read(self, subscriber: Subscriber, place: dict[int, int], partition: int, most: int) -> list[bytes]:
        end, source = self._hub.cursor[partition], TopicPartition(self._topic, partition)
        async with self._readers:
            records: Sequence[Record] = await asyncio.to_thread(
                self._log.read, source, place[partition], _READ_RECORDS_MAX
            )
        found: list[bytes] = []
        for record in records:
            if record.offset >= end or len(found) >= most:
                break
            place[partition] = record.offset + 1
            value = record.value
            if value is not None and subscriber.wanted.takes(record.key, is_drill_envelope(value)):
                found.append(value)
        if not records:
            place[partition] = end
        return found
