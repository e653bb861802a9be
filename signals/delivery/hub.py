"""One encoded copy of each event, shared by every open stream.

The hub lives on the event loop: the tail's thread hands records over, they become frames once, and subscribers walk the
same short list of frames by index. Nothing is queued per subscriber; one that falls further behind than the bound is
cut and resumes by its cursor. Invariant: the id of a frame is the place right behind it, so resuming there misses
nothing and repeats nothing.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ingest.log.interface import Record, TopicPartition
from ingest.metrics import Metrics
from signals.delivery.cursor import encode_cursor

HEARTBEAT = b": heartbeat\n\n"


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as bytes of the stream; heartbeats have no rollout and go to everybody."""

    data: bytes
    rollout: bytes | None


@dataclass(eq=False, slots=True)
class Subscriber:
    """One open stream.

    Attributes:
        rollout: the only rollout wanted; None wants all.
        position: sequence number of the next frame to send; None while it still reads from the log.
        cut: ends the stream at once; set by whoever serves it.
    """

    rollout: bytes | None
    position: int | None = None
    cut: Callable[[], object] = field(default=lambda: None)

    def wants(self, rollout: bytes | None) -> bool:
        """Tell whether a frame is for this subscriber."""
        return self.rollout is None or rollout is None or rollout == self.rollout


def encode_frame(cursor: Mapping[int, int], record: Record) -> Frame:
    """Return the event of one record; `cursor` is the place right behind it."""
    lines = (record.value or b"").splitlines()
    data = b"".join(b"data: %s\n" % line for line in lines)
    return Frame(b"id: %s\nevent: killswitch\n%s\n" % (encode_cursor(cursor).encode(), data), record.key)


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
        self._loop: asyncio.AbstractEventLoop | None = None
        self.cursor: dict[int, int] = {}
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
        """Take records from the tail's thread."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._publish, source.partition, records)
        except RuntimeError:
            # The loop is closed: the process is ending and nobody listens any more.
            self.closed = True

    def admit(self, rollout: bytes | None) -> Subscriber | None:
        """Return a new subscriber, or None if there are as many as may be."""
        if len(self._subscribers) >= self._subscribers_max:
            return None
        subscriber = Subscriber(rollout)
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
        return b"".join([frame.data for frame in waiting if subscriber.wants(frame.rollout)])

    async def changed(self) -> None:
        """Wait until there is a new frame, or the hub is closed."""
        await self._changed.wait()

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
        # Those who wait now are woken, those who come later wait for the next one.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
