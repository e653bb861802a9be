"""The queue of one subscription in one keyed partition: a state machine without clock, network or log.

The dispatcher feeds it events and the time, asks what to post, and says what came of it. Invariants:
    - of each rollout one event is under way at a time, lowest offset first: its numbers arrive in order;
    - an event leaves the queue delivered, as a dead letter, or because the subscription no longer wants it;
    - the place covers everything: what is not settled lies at or after `position`, or is listed as waiting.

An event that a receiver answers badly waits by itself, and other rollouts go on. Where nobody answers, or the receiver
asks for a pause, the whole queue waits, and then tries one event at a time until one arrives.
"""

from bisect import insort
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from signals.delivery.webhooks.event import PostedEvent, wants
from signals.delivery.webhooks.words import (
    AttemptWord,
    DeadDelivery,
    DeliveryPlace,
    Disabled,
    Subscription,
)

WINDOW = 64
IN_FLIGHT_MAX = 4
TRIES_LEAST = 5
DEAD_MAX = 256
# How far the place may be ahead of the log's while nothing was for this subscription: what a restart reads again.
UNWRITTEN_MAX = 256
BACKOFF_MS, BACKOFF_MS_MAX = 1000, 300_000
RETRY_AFTER_MS_MAX = 3_600_000
DETAIL_CHARACTERS_MAX = 200
# Nobody is there, or asks for a pause: what holds for one event holds for all.
_WHOLE_QUEUE = frozenset({AttemptWord.BUSY, AttemptWord.TIMED_OUT, AttemptWord.UNREACHABLE, AttemptWord.REFUSED_TARGET})


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended.

    Attributes:
        word: the closed word.
        detail: for people: the status, or what the network said.
        retry_after_ms: how long the receiver asked to be left alone; 0: it did not.
    """

    word: AttemptWord
    detail: str = ""
    retry_after_ms: int = 0


@dataclass(slots=True)
class _Waiting:
    event: PostedEvent
    due_ms: int = 0
    tries: int = 0
    in_flight: bool = False


@dataclass(slots=True)
class _Trouble:
    """How the whole receiver fares: attempts in a row that nobody answered, and until when it is left alone.

    A pause that the receiver asked for stands apart: an event that was under way meanwhile and arrives ends the other
    one only.
    """

    failures: int = 0
    until_ms: int = 0
    asked_until_ms: int = 0
    last: str = ""


@dataclass(slots=True)
class _Changed:
    """What the log does not know yet."""

    place: bool = False
    dead: set[int] = field(default_factory=set)


def backoff_ms(tries: int, spread: float) -> int:
    """Return how long to wait after so many tries: doubling up to five minutes, half of it by `spread` in [0, 1)."""
    most = min(BACKOFF_MS << min(max(tries - 1, 0), 16), BACKOFF_MS_MAX)
    return int(most / 2 * (1 + spread))


class Lane:
    """One subscription's queue; the dispatcher's thread only."""

    def __init__(
        self,
        subscription: Subscription,
        partition: int,
        retry_ms: int,
        place: DeliveryPlace | None = None,
        dead: Mapping[int, DeadDelivery] | None = None,
    ) -> None:
        """Go on from a place, or begin where the subscription says.

        Args:
            subscription: whose queue it is.
            partition: of the kill-switch topic.
            retry_ms: for how long after its append an event is tried again.
            place: what the log holds of this queue; None: nothing yet.
            dead: its dead letters, by offset.
        """
        self.subscription = subscription
        self.partition = partition
        self._retry_ms = retry_ms
        self.position = place.position if place else self._start()
        self.disabled = place.disabled if place else Disabled.NO
        self.delivered = place.delivered if place else 0
        self.dead: dict[int, DeadDelivery] = dict(dead or {})
        self.in_flight = 0
        self._revision = place.revision if place else subscription.revision
        self._redelivered = place.redelivered if place else 0
        self._missing = sorted(place.waiting) if place else []
        self._queues: dict[str, deque[_Waiting]] = {}
        self._by_offset: dict[int, _Waiting] = {}
        self._trouble = _Trouble(last=place.last if place else "")
        self._changed = _Changed(place=place is None)
        self._position_written = self.position
        self.change(subscription)

    @property
    def active(self) -> bool:
        """Whether anything is delivered now."""
        return self.subscription.enabled and self.disabled is Disabled.NO

    @property
    def queued(self) -> int:
        """How many events are known to be undelivered."""
        return len(self._by_offset) + len(self._missing)

    @property
    def _pause_ms(self) -> int:
        return max(self._trouble.until_ms, self._trouble.asked_until_ms)

    @property
    def oldest_ms(self) -> int:
        """When the oldest undelivered event was appended; 0: there is none."""
        return min((waiting.event.appended_at_ms for waiting in self._by_offset.values()), default=0)

    @property
    def waiting(self) -> list[int]:
        """The offsets before `position` that are not settled."""
        return sorted([*self._by_offset, *self._missing])

    def change(self, subscription: Subscription) -> None:
        """Go by a newer word of the subscription: filters, a pause, another start, redelivery."""
        self.subscription = subscription
        if subscription.revision > self._revision:
            # Somebody has looked at it since Cordon stopped serving it.
            self.disabled = Disabled.NO
            self._trouble = _Trouble(last=self._trouble.last)
            if subscription.start_revision > self._revision:
                self._restart()
            self._revision = subscription.revision
            self._changed.place = True
        for redelivery in subscription.redeliveries:
            if redelivery.serial > self._redelivered:
                self._redelivered = redelivery.serial
                self._revive(redelivery.event_id)
        for waiting in [one for one in self._by_offset.values() if not one.in_flight]:
            if not wants(subscription, waiting.event):
                self._drop(waiting)

    @property
    def room(self) -> int:
        """How many more events may be held."""
        return WINDOW - len(self._by_offset)

    def wants_read(self, head: int) -> int | None:
        """Return the offset that should be read next, below `head`; None while there is no need or no room."""
        if not self.active or len(self._by_offset) >= WINDOW:
            return None
        if self._missing:
            return self._missing[0]
        return self.position if self.position < head else None

    def take(self, events: Sequence[PostedEvent], start: int, end: int) -> None:
        """Take what lies from `start` to before `end`; `start` is what `wants_read` said, `events` in order."""
        if self._missing and self._missing[0] <= start:
            end = min(end, self.position)
            found = {event.offset: event for event in events if event.offset < end}
            for offset in [offset for offset in self._missing if start <= offset < end]:
                event = found.get(offset)
                if event is not None and len(self._by_offset) >= WINDOW:
                    return
                self._missing.remove(offset)
                self._changed.place = True
                if event is not None:
                    self._add(event)
            return
        if start > self.position:
            return
        for event in events:
            if not self.position <= event.offset < end:
                continue
            if len(self._by_offset) >= WINDOW:
                return
            self._add(event)
            self.position = event.offset + 1
        self.position = max(self.position, end)

    def next(self, now_ms: int) -> PostedEvent | None:
        """Return the event to post now and count it as under way; None: nothing is due."""
        if not self.active or self._pause_ms > now_ms:
            return None
        if self.in_flight >= (1 if self._trouble.failures else IN_FLIGHT_MAX):
            return None
        heads = [queue[0] for queue in self._queues.values() if not queue[0].in_flight and queue[0].due_ms <= now_ms]
        if not heads:
            return None
        # Least tried first: an event that its receiver can't stand must not keep the others from their turn.
        chosen = min(heads, key=lambda waiting: (waiting.tries, waiting.event.offset))
        chosen.in_flight = True
        chosen.tries += 1
        self.in_flight += 1
        return chosen.event

    def wake_ms(self) -> int | None:
        """Return when `next` may have something that it has not now; None: only after something else happens."""
        heads = [queue[0].due_ms for queue in self._queues.values() if not queue[0].in_flight]
        if not self.active or not heads or self.in_flight >= (1 if self._trouble.failures else IN_FLIGHT_MAX):
            return None
        return max(min(heads), self._pause_ms)

    def settle(self, offset: int, result: Result, now_ms: int, spread: float) -> None:
        """Take how an attempt ended.

        Args:
            offset: of the event.
            result: what came of it.
            now_ms: the time.
            spread: jitter of the next wait, in [0, 1).
        """
        waiting = self._by_offset.get(offset)
        if waiting is None or not waiting.in_flight:
            return
        waiting.in_flight = False
        self.in_flight -= 1
        self._changed.place = True
        detail = result.detail[:DETAIL_CHARACTERS_MAX]
        self._trouble.last = f"{result.word.value}: {detail}" if detail else result.word.value
        if result.word is AttemptWord.DELIVERED:
            self._deliver(waiting)
            return
        if result.word is AttemptWord.GONE:
            self._disable(Disabled.GONE)
            return
        self._wait(waiting, result, now_ms, spread)
        if not wants(self.subscription, waiting.event):
            self._drop(waiting)
        elif self._given_up(waiting, result, now_ms):
            self._bury(waiting, result, now_ms)

    def changes(self) -> list[DeliveryPlace | DeadDelivery | int]:
        """Return what the log must be told, once: a place, dead letters, offsets of those that are dead no more."""
        told: list[DeliveryPlace | DeadDelivery | int] = [
            self.dead.get(offset, offset) for offset in sorted(self._changed.dead)
        ]
        if self._changed.place or told or self.position - self._position_written >= UNWRITTEN_MAX:
            told.append(self.place())
            self._position_written = self.position
        self._changed = _Changed()
        return told

    def place(self) -> DeliveryPlace:
        """Return the place as it is now."""
        return DeliveryPlace(
            subscription=self.subscription.id,
            partition=self.partition,
            position=self.position,
            waiting=self.waiting,
            revision=self._revision,
            disabled=self.disabled,
            redelivered=self._redelivered,
            delivered=self.delivered,
            oldest_ms=self.oldest_ms,
            last=self._trouble.last,
        )

    def _start(self) -> int:
        starts = self.subscription.starts
        return starts[self.partition] if self.partition < len(starts) else 0

    def _restart(self) -> None:
        for waiting in [one for one in self._by_offset.values() if not one.in_flight]:
            self._drop(waiting)
        self._missing = []
        self.position = max(self._start(), max(self._by_offset, default=-1) + 1)

    def _revive(self, event_id: str) -> None:
        for offset, letter in self.dead.items():
            if event_id in ("", letter.event_id) and offset not in self._by_offset and offset not in self._missing:
                insort(self._missing, offset)
        self._changed.place = True

    def _add(self, event: PostedEvent) -> None:
        if event.offset in self._by_offset or not wants(self.subscription, event):
            return
        waiting = _Waiting(event)
        self._by_offset[event.offset] = waiting
        queue = self._queues.setdefault(event.rollout, deque())
        queue.append(waiting)
        if len(queue) > 1 and queue[-2].event.offset > event.offset:
            # Delivered again by hand, among later ones: in its place, but never before what is under way.
            under_way = [one for one in queue if one.in_flight]
            rest = sorted((one for one in queue if not one.in_flight), key=lambda one: one.event.offset)
            self._queues[event.rollout] = deque([*under_way, *rest])
        self._changed.place = True

    def _drop(self, waiting: _Waiting) -> None:
        del self._by_offset[waiting.event.offset]
        queue = self._queues[waiting.event.rollout]
        queue.remove(waiting)
        if not queue:
            del self._queues[waiting.event.rollout]
        self._changed.place = True

    def _deliver(self, waiting: _Waiting) -> None:
        self._drop(waiting)
        self.delivered += 1
        self._trouble.failures = self._trouble.until_ms = 0
        if self.dead.pop(waiting.event.offset, None) is not None:
            self._changed.dead.add(waiting.event.offset)

    def _wait(self, waiting: _Waiting, result: Result, now_ms: int, spread: float) -> None:
        asked = min(result.retry_after_ms, RETRY_AFTER_MS_MAX)
        waiting.due_ms = now_ms + max(asked, backoff_ms(waiting.tries, spread))
        if result.word in _WHOLE_QUEUE:
            self._trouble.failures += 1
            self._trouble.until_ms = now_ms + backoff_ms(self._trouble.failures, spread)
            if asked:
                self._trouble.asked_until_ms = max(now_ms + asked, self._trouble.asked_until_ms)
            # The queue's own pause is enough: after it this event takes its turn with the others.
            waiting.due_ms = self._pause_ms
        else:
            # Somebody is there: only this event waits.
            self._trouble.failures = self._trouble.until_ms = 0

    def _given_up(self, waiting: _Waiting, result: Result, now_ms: int) -> bool:
        if waiting.tries < TRIES_LEAST:
            return False
        return result.word is AttemptWord.REJECTED or now_ms - waiting.event.appended_at_ms >= self._retry_ms

    def _bury(self, waiting: _Waiting, result: Result, now_ms: int) -> None:
        event = waiting.event
        if event.offset not in self.dead and len(self.dead) >= DEAD_MAX:
            # Nothing is ever forgotten to make room: whoever has so many must look first.
            self._disable(Disabled.DEAD_LETTERS_FULL)
            return
        self._drop(waiting)
        self.dead[event.offset] = DeadDelivery(
            subscription=self.subscription.id,
            partition=self.partition,
            offset=event.offset,
            event_id=event.event_id,
            word=result.word,
            detail=result.detail[:DETAIL_CHARACTERS_MAX],
            tries=waiting.tries,
            at_ms=now_ms,
        )
        self._changed.dead.add(event.offset)

    def _disable(self, why: Disabled) -> None:
        self.disabled = why
        self._changed.place = True
