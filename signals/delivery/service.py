"""What stands behind the streams listener: the tail, the views and the hub, started and ended together.

The composition root makes one and hands it to `streams_app`. Invariant: once `start` has returned the views hold
everything the log held, so a rollout is never unknown because Cordon has just started.
"""

import asyncio
from collections.abc import Sequence

from ingest.log.interface import Log, Record, TopicPartition
from ingest.metrics import Metrics
from ingest.topics import TOPICS, Topics
from signals.delivery.alerts import AlertsView
from signals.delivery.cursor import CursorError, decode_cursor
from signals.delivery.hub import StreamHub
from signals.delivery.stream import EventStreams
from signals.delivery.tail import Tail
from signals.delivery.views import Views
from signals.killswitch.signing import PublicKeys

HEARTBEAT_SECONDS = 15.0


class StreamService:
    """The live side of one lane's signals; `start`, `stop` and `close_streams` belong to the event loop."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        keys: PublicKeys,
        metrics: Metrics,
        *,
        subscribers_max: int,
        queue_max: int,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        """Prepare; nothing is read before `start`.

        Args:
            log: what is followed.
            topics: the lane's names and partition counts.
            keys: the public key set that is published and that switch records must be signed with.
            metrics: gauges and counters of the streams.
            subscribers_max: setting `stream_subscribers_max`.
            queue_max: setting `stream_queue_max`.
            heartbeat_seconds: time between comments on an idle stream.
        """
        self.log = log
        self.topics = topics
        self.keys = keys
        self.metrics = metrics
        self.views = Views(keys)
        self.alerts = AlertsView()
        self.hub = StreamHub(queue_max, subscribers_max, metrics)
        self.streams = EventStreams(log, topics.name("killswitch"), self.hub)
        self._heartbeat_seconds = heartbeat_seconds
        self._tail: Tail | None = None
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fill the views and begin to follow the log."""
        stream = self._sources("killswitch")
        ends = {source: self.log.bounds(source)[1] for source in stream}
        views = {
            **dict.fromkeys(self._sources("switches"), self.views.take_switches),
            **dict.fromkeys(self._sources("rollouts"), self.views.take_rollouts),
            **dict.fromkeys(self._sources("verdicts"), self.views.take_verdicts),
            **dict.fromkeys(self._sources("alerts"), self.alerts.take),
        }
        self.hub.open({source.partition: end for source, end in ends.items()})
        leases = dict.fromkeys(self._sources("leases"), self._take_leases)
        # Events come first in every turn of the tail, leases last: a lease is about an event before it.
        self._tail = Tail(self.log, {**dict.fromkeys(stream, self._take_events), **views, **leases}, ends)
        await asyncio.to_thread(self._tail.catch_up)
        self._tail.start()
        self._beating = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """End every stream and stop following."""
        self.close_streams()
        if self._beating is not None:
            self._beating.cancel()
        if self._tail is not None:
            await asyncio.to_thread(self._tail.stop)

    def close_streams(self) -> None:
        """End every open stream and admit no more: what SIGTERM does first. Call it on the event loop."""
        self.hub.close()

    def place(self, last_event_id: str | None, start: str) -> dict[int, int]:
        """Return where a subscriber begins: the next offset by partition.

        Args:
            last_event_id: what the subscriber sent, if it resumes; it wins over `start`.
            start: `latest` or `start`.

        Raises:
            CursorError: neither is what this stream gives or takes.
        """
        sources = self._sources("killswitch")
        if last_event_id:
            place = decode_cursor(last_event_id, [source.partition for source in sources])
            for source in sources:
                if place[source.partition] > self.log.bounds(source)[1]:
                    raise CursorError(
                        "Last-Event-ID lies ahead of this log: it comes from another Cordon, or this log was replaced. "
                        "Use ?from=start to read everything again"
                    )
            return place
        if start == "latest":
            return dict(self.hub.cursor)
        if start == "start":
            return {source.partition: self.log.bounds(source)[0] for source in sources}
        raise CursorError(f"from={start[:32]!r}: use latest or start")

    def _sources(self, word: str) -> list[TopicPartition]:
        topic = next(item for item in TOPICS if item.word == word)
        return [TopicPartition(self.topics.name(word), part) for part in range(self.topics.partitions(topic))]

    def _take_events(self, source: TopicPartition, records: Sequence[Record]) -> None:
        """Show events before they are sent: a subscriber that asks for the verdict at once finds what it was told."""
        self.views.take_events(source, records)
        self.hub.offer(source, records)

    def _take_leases(self, source: TopicPartition, records: Sequence[Record]) -> None:
        self.views.take_leases(source, records)
        self.hub.offer_leases(source, records)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            self.hub.beat()
