"""What is known of every subscription: the newest words of two topics, in memory.

Between the log and the desk. Invariant: an older word of a subscription never replaces a newer one.
"""

import threading
from collections.abc import Mapping, Sequence

import msgspec

from detectors.scope import Scope
from ingest.events import UNREADABLE_ERRORS
from ingest.log.interface import Log, Record, TopicPartition
from ingest.topics import Topics
from signals.delivery.tail import Tail
from signals.delivery.wanted import Drills
from signals.delivery.webhooks.words import (
    DeadDelivery,
    DeliveryPlace,
    Disabled,
    Subscription,
    dead_decoder,
    is_dead_key,
    place_decoder,
    subscription_decoder,
)


class UnknownWebhookError(Exception):
    """There is no such subscription."""


class WebhookStatus(msgspec.Struct, kw_only=True):
    """A subscription, and how it fares.

    Attributes:
        id: names it.
        url: where events are posted.
        note: what it is for.
        rollouts: ids of the rollouts wanted; empty: all.
        products: `vendor/product` of the rollouts wanted; empty: all.
        scope: the part of a fleet that is meant.
        drills: whether events of drills are sent.
        enabled: false while somebody has paused it.
        disabled: why Cordon stopped serving it by itself; empty: it did not.
        version: of its secret.
        created_by: the name of the token that made it.
        created_ms: when.
        delivered: events delivered over its life.
        waiting: events of which it is known that they are for it and undelivered, half a second ago.
        oldest_ms: when the oldest of them was appended; 0: there is none.
        dead: dead letters.
        last: how the last attempt ended.
    """

    id: str
    url: str
    note: str
    rollouts: list[str]
    products: list[str]
    scope: Scope
    drills: Drills
    enabled: bool
    disabled: Disabled
    version: int
    created_by: str
    created_ms: int
    delivered: int
    waiting: int
    oldest_ms: int
    dead: int
    last: str


class WebhookView:
    """The view of one lane; any thread."""

    def __init__(self, log: Log, topics: Topics) -> None:
        """Prepare; `start` comes before anything else."""
        self._log, self._topics = log, topics
        self._lock = threading.Lock()
        self._subscriptions: dict[str, Subscription] = {}
        self._places: dict[bytes, DeliveryPlace] = {}
        self._letters: dict[bytes, DeadDelivery] = {}
        self._tail: Tail | None = None

    def start(self) -> None:
        """Fill the view and begin to follow both topics."""
        deliveries = [
            TopicPartition(self._topics.name("deliveries"), number) for number in range(self._topics.keyed_partitions)
        ]
        subscriptions = TopicPartition(self._topics.name("subscriptions"), 0)
        handlers = {subscriptions: self.take, **dict.fromkeys(deliveries, self.take_deliveries)}
        self._tail = Tail(self._log, handlers, {})
        self._tail.catch_up()
        self._tail.start()

    def stop(self) -> None:
        """Stop following."""
        if self._tail is not None:
            self._tail.stop()

    def known(self, name: str) -> Subscription:
        """Return one subscription.

        Raises:
            UnknownWebhookError: there is none of that id.
        """
        with self._lock:
            return required(self._subscriptions, name)

    def every(self) -> list[WebhookStatus]:
        """Return every subscription and how it fares, oldest first."""
        with self._lock:
            found = sorted(self._subscriptions.values(), key=lambda one: (one.created_ms, one.id))
            places, letters = list(self._places.values()), list(self._letters.values())
        mine: dict[str, list[DeliveryPlace]] = {}
        for place in places:
            mine.setdefault(place.subscription, []).append(place)
        dead: dict[str, int] = {}
        for letter in letters:
            dead[letter.subscription] = dead.get(letter.subscription, 0) + 1
        return [status_of(one, mine.get(one.id, []), dead.get(one.id, 0)) for one in found]

    def get(self, name: str) -> WebhookStatus:
        """Return one subscription and how it fares.

        Raises:
            UnknownWebhookError: there is none of that id.
        """
        subscription = self.known(name)
        with self._lock:
            places = [place for place in self._places.values() if place.subscription == name]
            dead = sum(letter.subscription == name for letter in self._letters.values())
        return status_of(subscription, places, dead)

    def dead(self, name: str) -> list[DeadDelivery]:
        """Return a subscription's dead letters, oldest first.

        Raises:
            UnknownWebhookError: there is none of that id.
        """
        self.known(name)
        with self._lock:
            letters = [letter for letter in self._letters.values() if letter.subscription == name]
        return sorted(letters, key=lambda letter: (letter.at_ms, letter.partition, letter.offset))

    def take(self, _source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the subscriptions topic."""
        for record in records:
            if record.key is None:
                continue
            name, changed = record.key.decode(errors="replace"), decoded(record)
            with self._lock:
                known = self._subscriptions.get(name)
                if changed is None and record.value is None:
                    self._subscriptions.pop(name, None)
                elif changed is not None and (known is None or changed.revision >= known.revision):
                    self._subscriptions[name] = changed

    def take_deliveries(self, _source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the deliveries topic."""
        for record in records:
            if record.key is None:
                continue
            with self._lock:
                if record.value is None:
                    self._places.pop(record.key, None)
                    self._letters.pop(record.key, None)
                    continue
                try:
                    if is_dead_key(record.key):
                        self._letters[record.key] = dead_decoder.decode(record.value)
                    else:
                        self._places[record.key] = place_decoder.decode(record.value)
                except UNREADABLE_ERRORS:
                    # Written by a newer version: shown is what was known before.
                    continue


def decoded(record: Record) -> Subscription | None:
    """Return the subscription of a record; None for a tombstone and for what can't be read."""
    if record.value is None:
        return None
    try:
        return subscription_decoder.decode(record.value)
    except UNREADABLE_ERRORS:
        return None


def required(known: Mapping[str, Subscription], name: str) -> Subscription:
    """Return the subscription of that id.

    Raises:
        UnknownWebhookError: there is none.
    """
    subscription = known.get(name)
    if subscription is None:
        raise UnknownWebhookError(f"no webhook {name[:64]!r}: `cordon webhooks list` shows them")
    return subscription


def status_of(one: Subscription, places: Sequence[DeliveryPlace], dead: int) -> WebhookStatus:
    """Return how a subscription fares, by what was written of it in each partition."""
    # What Cordon wrote before somebody changed the subscription does not hold any more.
    current = [place.disabled for place in places if place.revision >= one.revision]
    oldest = [place.oldest_ms for place in places if place.oldest_ms]
    return WebhookStatus(
        id=one.id,
        url=one.url,
        note=one.note,
        rollouts=one.rollouts,
        products=one.products,
        scope=one.scope,
        drills=one.drills,
        enabled=one.enabled,
        disabled=next((why for why in current if why is not Disabled.NO), Disabled.NO),
        version=one.version,
        created_by=one.created_by,
        created_ms=one.created_ms,
        delivered=sum(place.delivered for place in places),
        waiting=sum(len(place.waiting) for place in places),
        oldest_ms=min(oldest, default=0),
        dead=dead,
        last=next((place.last for place in places if place.last), ""),
    )
