"""One encoded copy of each event, shared by every open stream.

The hub lives on the event loop: the tail's thread hands records over, they become frames once, and subscribers walk the
same short list of frames by index. Nothing is queued per subscriber; one that falls further behind than the bound is
cut and resumes by its cursor. Leases stand apart (`leases.py`): of each rollout only the latest is kept, so a burst of
them cuts nobody. Invariant: the id of a frame is the place right behind it, so resuming there misses nothing and
repeats nothing; leases have no id.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ingest.log.interface import Record, TopicPartition
from ingest.metrics import Metrics
from signals.delivery.cursor import encode_cursor
from signals.delivery.leases import LatestLeases
from signals.delivery.wanted import Wanted, is_drill_envelope

HEARTBEAT = b": heartbeat\n\n"


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as bytes of the stream; heartbeats have no rollout and go to everybody."""

    data: bytes
    rollout: bytes | None
    drill: bool = False


@dataclass(eq=False, slots=True)
class Subscriber:
    """One open stream.

    Attributes:
        wanted: which events and leases it asked for.
        position: sequence number of the next frame to send; None while it still reads from the log.
        leases_position: sequence number of the next lease to send.
        cut: ends the stream at once; set by whoever serves it.
    """

    wanted: Wanted
    position: int | None = None
    leases_position: int = 0
    cut: Callable[[], object] = field(default=lambda: None)

    def wants(self, frame: Frame) -> bool:
        """Tell whether a frame is for this subscriber."""
        return frame.rollout is None or self.wanted.takes(frame.rollout, frame.drill)


def encode_frame(cursor: Mapping[int, int], record: Record) -> Frame:
    """Return the event of one record; `cursor` is the place right behind it."""
    value = record.value or b""
    data = b"".join(b"data: %s\n" % line for line in value.splitlines())
    frame = b"id: %s\nevent: killswitch\n%s\n" % (encode_cursor(cursor).encode(), data)
    return Frame(frame, record.key, is_drill_envelope(value))


class StreamHub:
    """The open streams and the newest frames; every method but `offer` runs on the event loop."""

    def __init__(self, queue_max: int, subscribers_max: int, metrics: Metrics) -> None:
        """Prepare; `open` must come before anything else.

        Args:
            queue_max: frames a subscriber may be behind before it is cut.
            subscribers_max: streams open at once.
            metrics: gauges open streams and counts cut ones.
        """
        self._queue_max = queue_max
        self._subscribers_max = subscribers_max
        self._metrics = metrics
        self._subscribers: set[Subscriber] = set()
        self._frames: list[Frame] = []
        self._base = 0
        self._changed = asyncio.Event()
        self._changed_or_leased = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.cursor: dict[int, int] = {}
        self.leases = LatestLeases()
        self.closed = False

    @property
    def head(self) -> int:
        """Return the sequence number the next frame will get."""
        return self._base + len(self._frames)

    def open(self, cursor: Mapping[int, int]) -> None:
        """Begin on the running event loop, at `cursor`."""
        self._loop = asyncio.get_running_loop()
        self.cursor = dict(cursor)
        self.closed = False

    def offer(self, source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the kill-switch topic from the tail's thread."""
        self._hand_over(lambda: self._publish(source.partition, records))

    def offer_leases(self, _source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of the leases topic from the tail's thread."""
        self._hand_over(lambda: self._lease(records))

    def _hand_over(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            # The loop is closed: the process is ending and nobody listens any more.
            self.closed = True

    def admit(self, wanted: Wanted) -> Subscriber | None:
        """Return a new subscriber, or None if there are as many as may be."""
        if len(self._subscribers) >= self._subscribers_max:
            return None
        subscriber = Subscriber(wanted)
        self._subscribers.add(subscriber)
        self._metrics.set("stream_subscribers", len(self._subscribers))
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a subscriber."""
        self._subscribers.discard(subscriber)
        self._metrics.set("stream_subscribers", len(self._subscribers))

    def take(self, subscriber: Subscriber) -> bytes:
        """Return every frame the subscriber has not had, as one piece of bytes, and move it to the head."""
        assert subscriber.position is not None
        waiting = self._frames[max(0, subscriber.position - self._base) :]
        subscriber.position = self.head
        pieces = [frame.data for frame in waiting if subscriber.wants(frame)]
        if subscriber.wanted.leases:
            # Events first: a lease is about the last one before it.
            pieces += self.leases.since(subscriber.leases_position, subscriber.wanted)
            subscriber.leases_position = self.leases.head
        return b"".join(pieces)

    async def changed(self, subscriber: Subscriber) -> None:
        """Wait until there is something new of the kinds it asked for, or the hub is closed."""
        await (self._changed_or_leased if subscriber.wanted.leases else self._changed).wait()

    def beat(self) -> None:
        """Send everybody a comment, so that a dead connection is noticed at either end."""
        self._add([Frame(HEARTBEAT, None)])

    def close(self) -> None:
        """End every stream, on the event loop: each sends what it has and says goodbye."""
        self.closed = True
        self._wake()

    def _publish(self, partition: int, records: Sequence[Record]) -> None:
        frames = []
        for record in records:
            self.cursor[partition] = record.offset + 1
            if record.value is not None:
                frames.append(encode_frame(self.cursor, record))
        self._add(frames)

    def _lease(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.key is not None:
                self.leases.put(record.key, record.value)
        self._changed_or_leased = _set(self._changed_or_leased)

    def _add(self, frames: list[Frame]) -> None:
        # Who is behind is judged before the new frames count: a burst is no subscriber's fault.
        oldest = self.head - self._queue_max
        for subscriber in [item for item in self._subscribers if item.position is not None and item.position < oldest]:
            self._metrics.count("stream_cut_total")
            self.leave(subscriber)
            subscriber.cut()
        passed = max(0, oldest - self._base)
        del self._frames[:passed]
        self._base += passed
        self._frames += frames
        self._wake()

    def _wake(self) -> None:
        self._changed = _set(self._changed)
        self._changed_or_leased = _set(self._changed_or_leased)


def _set(event: asyncio.Event) -> asyncio.Event:
    """Wake those who wait now; return what those who come later wait for."""
    event.set()
    return asyncio.Event()
