"""The webhooks of one keyed partition: which posts and reads are due now, and what the log must be told.

Without clock, network or log of its own, like the lanes that it holds: a shell gives it records and results, carries
out what it asks for, and appends what it says. So the same object runs in the process and in the simulation. Invariant:
what `outputs` hands over is kept until the shell says it is written, so a log that is away loses nothing.
"""

import heapq
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from ingest.events import UNREADABLE_ERRORS, encoder
from ingest.log.interface import Entry, Record, TopicPartition
from signals.delivery.webhooks.event import PostedEvent, posted_event
from signals.delivery.webhooks.lane import Lane, Result
from signals.delivery.webhooks.words import (
    DeadDelivery,
    DeliveryPlace,
    Subscription,
    dead_decoder,
    dead_key,
    is_dead_key,
    place_decoder,
    place_key,
    subscription_decoder,
)

RECENT_MAX = 1024
# One read for every event that leaves would read each of them many times.
READ_RECORDS_LEAST = 16
ENTRIES_MAX = 256


@dataclass(frozen=True, slots=True)
class Post:
    """An event to be posted to a subscription now; the shell answers with `settle`."""

    subscription: Subscription
    event: PostedEvent


@dataclass(frozen=True, slots=True)
class Read:
    """Records that a subscription which is behind needs; the shell answers with `give`.

    Attributes:
        offset: the first one.
        most: how many there is room for.
        head: where the log ended when this was asked.
    """

    subscription: str
    offset: int
    most: int
    head: int


@dataclass(slots=True)
class Numbers:
    """What the metrics show of a partition.

    Attributes:
        queued: undelivered events that are known, over all subscriptions.
        oldest_ms: when the oldest of them was appended, of subscriptions that are served; 0: there is none.
        dead: dead letters.
        disabled: subscriptions that are not served now, by Cordon's word or a person's.
    """

    queued: int = 0
    oldest_ms: int = 0
    dead: int = 0
    disabled: int = 0


class Dispatcher:
    """Every subscription's lane in one partition; one thread."""

    def __init__(self, deliveries: TopicPartition, retry_ms: int, head: int, seed: int | None = None) -> None:
        """Prepare.

        Args:
            deliveries: where places and dead letters are written.
            retry_ms: for how long after its append an event is tried again.
            head: the kill-switch topic's end: the offset that its next record gets.
            seed: of the jitter; None: unpredictable.
        """
        self._deliveries = deliveries
        self._retry_ms = retry_ms
        self.head = head
        self._random = random.Random(seed)
        self._lanes: dict[str, Lane] = {}
        self._places: dict[str, DeliveryPlace] = {}
        self._letters: dict[str, dict[int, DeadDelivery]] = {}
        self._recent: deque[PostedEvent] = deque(maxlen=RECENT_MAX)
        self._recent_from = head
        self._events: WeakValueDictionary[int, PostedEvent] = WeakValueDictionary()
        self._ready: dict[str, None] = {}
        self._reading: set[str] = set()
        self._timers: list[tuple[int, str]] = []
        self._timer_of: dict[str, int] = {}
        self._changed: dict[str, None] = {}
        self._out: list[Entry] = []
        self._handed: list[Entry] = []

    @property
    def lanes(self) -> Iterable[Lane]:
        """The lanes, in the order in which their subscriptions were made."""
        return self._lanes.values()

    def restore(self, records: Iterable[Record]) -> None:
        """Take the latest of each key of the deliveries topic; before any subscription."""
        for record in records:
            if record.key is None or record.value is None:
                continue
            if is_dead_key(record.key):
                letter = dead_decoder.decode(record.value)
                self._letters.setdefault(letter.subscription, {})[letter.offset] = letter
            else:
                place = place_decoder.decode(record.value)
                self._places[place.subscription] = place

    def take_subscriptions(self, records: Sequence[Record]) -> None:
        """Take records of the subscriptions topic; what can't be read changes nothing."""
        for record in records:
            if record.key is None:
                continue
            name = record.key.decode(errors="replace")
            if record.value is None:
                self._remove(name)
                continue
            try:
                self._subscribe(subscription_decoder.decode(record.value))
            except UNREADABLE_ERRORS:
                continue

    def tidy(self) -> None:
        """Forget places of subscriptions that are no more; once every subscription was taken."""
        for name in [*self._places, *self._letters]:
            self._remove(name)

    def take_events(self, records: Sequence[Record]) -> None:
        """Take the newest records of the kill-switch topic, in order."""
        for record in records:
            event = self._event(record)
            if event is not None:
                if len(self._recent) == RECENT_MAX:
                    self._recent_from = self._recent[0].offset + 1
                self._recent.append(event)
        if records:
            self.head = max(self.head, records[-1].offset + 1)
            self._ready.update(dict.fromkeys(self._lanes))

    def give(self, read: Read, records: Sequence[Record] | None) -> None:
        """Take what a read brought; None: it failed and is asked for again."""
        self._reading.discard(read.subscription)
        lane = self._lanes.get(read.subscription)
        if lane is None:
            return
        self._ready[read.subscription] = None
        if records is None:
            return
        events = [event for record in records if (event := self._event(record)) is not None]
        # Nothing there means nothing up to where the log ended when it was asked.
        end = records[-1].offset + 1 if records else read.head
        lane.take(events, read.offset, end)
        self._changed[read.subscription] = None

    def settle(self, post: Post, result: Result, now_ms: int) -> None:
        """Take how a post ended."""
        name = post.subscription.id
        lane = self._lanes.get(name)
        if lane is None:
            return
        lane.settle(post.event.offset, result, now_ms, self._random.random())
        self._ready[name] = None
        self._changed[name] = None

    def actions(self, now_ms: int) -> tuple[list[Post], list[Read]]:
        """Return the posts and reads that are due."""
        while self._timers and self._timers[0][0] <= now_ms:
            at_ms, name = heapq.heappop(self._timers)
            if self._timer_of.get(name) == at_ms:
                del self._timer_of[name]
                self._ready[name] = None
        posts: list[Post] = []
        reads: list[Read] = []
        ready, self._ready = self._ready, {}
        for name in ready:
            lane = self._lanes.get(name)
            if lane is None:
                continue
            self._fill(lane, reads)
            while (event := lane.next(now_ms)) is not None:
                posts.append(Post(lane.subscription, event))
            self._set_timer(name, lane)
        return posts, reads

    def next_ms(self) -> int | None:
        """Return when `actions` has something again if nothing else happens; None: never."""
        return self._timers[0][0] if self._timers else None

    def outputs(self) -> Sequence[Entry]:
        """Return what must be appended, bounded; the same again until `written` was called."""
        if self._handed:
            return self._handed
        while self._changed and len(self._out) < ENTRIES_MAX:
            name = next(iter(self._changed))
            del self._changed[name]
            lane = self._lanes.get(name)
            if lane is not None:
                self._out += [self._entry(name, change) for change in lane.changes()]
        self._handed, self._out = self._out, []
        return self._handed

    def written(self) -> None:
        """Know that what `outputs` handed over is in the log."""
        self._handed = []

    def numbers(self) -> Numbers:
        """Return what the metrics show."""
        said = Numbers()
        for lane in self._lanes.values():
            said.queued += lane.queued
            said.dead += len(lane.dead)
            said.disabled += not lane.active
            if lane.active and lane.oldest_ms and (not said.oldest_ms or lane.oldest_ms < said.oldest_ms):
                said.oldest_ms = lane.oldest_ms
        return said

    def _subscribe(self, subscription: Subscription) -> None:
        name = subscription.id
        lane = self._lanes.get(name)
        if lane is None:
            place, letters = self._places.pop(name, None), self._letters.pop(name, None)
            self._lanes[name] = Lane(subscription, self._deliveries.partition, self._retry_ms, place, letters)
        else:
            lane.change(subscription)
        self._ready[name] = self._changed[name] = None

    def _remove(self, name: str) -> None:
        lane = self._lanes.pop(name, None)
        letters = self._letters.pop(name, {}) if lane is None else lane.dead
        place = self._places.pop(name, None)
        if lane is None and place is None and not letters:
            return
        keys = [dead_key(name, self._deliveries.partition, offset) for offset in letters]
        # What was to be written of it would bring it back.
        self._out = [entry for entry in self._out if not (entry.key or b"").startswith(f"{name}/".encode())]
        self._out += [
            Entry(*self._deliveries, key, None) for key in (*keys, place_key(name, self._deliveries.partition))
        ]

    def _event(self, record: Record) -> PostedEvent | None:
        event = self._events.get(record.offset)
        if event is None:
            event = posted_event(record)
            if event is not None:
                self._events[record.offset] = event
        return event

    def _fill(self, lane: Lane, reads: list[Read]) -> None:
        name = lane.subscription.id
        while name not in self._reading and (offset := lane.wants_read(self.head)) is not None:
            if offset >= self._recent_from:
                lane.take(list(self._recent_since(offset)), offset, self.head)
                self._changed[name] = None
                continue
            if lane.room >= READ_RECORDS_LEAST:
                self._reading.add(name)
                reads.append(Read(name, offset, lane.room, self.head))
            break

    def _recent_since(self, offset: int) -> Iterator[PostedEvent]:
        # The newest are at the end, and a lane that keeps up wants only those.
        found = 0
        for event in reversed(self._recent):
            if event.offset < offset:
                break
            found += 1
        return (self._recent[index] for index in range(len(self._recent) - found, len(self._recent)))

    def _set_timer(self, name: str, lane: Lane) -> None:
        at_ms = lane.wake_ms()
        if at_ms is not None and self._timer_of.get(name) != at_ms:
            self._timer_of[name] = at_ms
            heapq.heappush(self._timers, (at_ms, name))

    def _entry(self, name: str, said: DeliveryPlace | DeadDelivery | int) -> Entry:
        partition = self._deliveries.partition
        if isinstance(said, int):
            return Entry(*self._deliveries, dead_key(name, partition, said), None)
        if isinstance(said, DeadDelivery):
            return Entry(*self._deliveries, dead_key(name, partition, said.offset), encoder.encode(said))
        return Entry(*self._deliveries, place_key(name, partition), encoder.encode(said))
