"""Faust agents that hand records to shares: what is between a consumer group and the Owners behind it.

An agent does three things. It pushes each event's record, the bytes untouched, to the feed of the share that owns its
partition; it acknowledges events, in order and only when the share has flushed what came of them; it pauses a partition
whose feed is full. It computes nothing and keeps nothing, so there is nothing it could dead-letter: what can't be used
is the stages' to say, in the transaction that knows of it.

Invariants: nothing that Faust does to its events can make a share inexact (loses, repeats or reorders them; commits
holes; seeks to what was committed), because a record is used only where it continues the position in the share's own
state, and is read from the log otherwise; no failure is swallowed: an event that can't be pushed is not acknowledged, a
share that fails ends this service with its error, and an app that crashes is made anew.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from faust.types import TP
from mode import Service

from deploy.workers.driver import Standing
from deploy.workers.faust_app import CordonApp, SinceMessage, cordon_app, raw_topic, stop_app
from ingest.log.feed import FEED_BYTES_MAX, Feed
from ingest.log.interface import Record, TopicPartition
from ingest.log.kafka.connection import Connection
from ingest.metrics import Metrics

# How often events are acknowledged and shares looked after.
TEND_SECONDS = 0.1
STOP_SECONDS = 10.0
RETRY_SECONDS = 1.0
RETRY_SECONDS_MAX = 10.0

logger = logging.getLogger(__name__)


class Shares(Protocol):
    """The shares of one stage that this process owns; called in the event loop, `standings` from any thread."""

    @property
    def unfed(self) -> bool:
        """Whether a share found records in the log that its agent had not pushed."""
        ...

    def begin(self, on_failure: Callable[[BaseException], None]) -> None:
        """Take the running loop, and whom to tell there of a failure for good."""
        ...

    def assign(self, sources: Collection[TopicPartition]) -> None:
        """Own exactly these partitions; must not wait."""
        ...

    def tend(self) -> None:
        """Do what is due now and then; must not wait."""
        ...

    def feed_of(self, source: TopicPartition) -> Feed | None:
        """Return where records of a partition are pushed; None: nobody here can take them now."""
        ...

    def flushed(self, source: TopicPartition) -> int:
        """Return the offset before which everything of a partition is done; 0 where nobody owns it."""
        ...

    async def revoke(self, timeout_seconds: float) -> None:
        """Flush and own nothing any more; bounded."""
        ...

    def standings(self) -> list[Standing]:
        """Return what the watchdog asks of each share."""
        ...


class Agents(Service):
    """One stage's agents on this worker: start it, wait until it is stopped, and see `crash_reason`."""

    def __init__(
        self,
        connection: Connection,
        group: str,
        client: str,
        topics: Sequence[str],
        shares: Shares,
        metrics: Metrics,
        *,
        stage_word: str,
        feed_bytes_max: int = FEED_BYTES_MAX,
    ) -> None:
        """Prepare; nothing connects before it is started, and starting does not wait for Kafka.

        Args:
            connection: how Kafka is reached.
            group: the consumer group.
            client: this process's name.
            topics: what the agent reads.
            shares: who takes the records.
            metrics: counts rebalances.
            stage_word: label of metrics, and the agent's name.
            feed_bytes_max: as the feeds have it: a paused partition goes on when half of it is used up.
        """
        super().__init__()
        self._connection, self._group, self._client = connection, group, client
        self._topics, self._shares, self._metrics = tuple(topics), shares, metrics
        self._stage_word, self._feed_bytes_max = stage_word, feed_bytes_max
        self._unacked: dict[TopicPartition, deque[SinceMessage]] = {}
        self._paused: set[TP] = set()
        self._pushed = 0
        self._failure: BaseException | None = None
        self._living: asyncio.Future[Any] | None = None

    def standings(self) -> list[Standing]:
        """Return what the watchdog asks: of each share, and of the agent, which must push what the log holds."""
        agent = Standing(f"{self._stage_word}'s agent", self._stage_word, self._pushed, self._shares.unfed)
        return [*self._shares.standings(), agent]

    async def on_start(self) -> None:
        """Begin to be a member of the group."""
        self._shares.begin(self._fail)
        self._living = self.add_future(self._live())

    async def on_stop(self) -> None:
        """End the shares first, so that all they have is written, acknowledge, and leave the group then."""
        if self._living is not None:
            await asyncio.wait([self._living])

    def _failed(self) -> bool:
        return self._failure is not None

    def _fail(self, error: BaseException) -> None:
        self._failure = error if self._failure is None else self._failure

    async def _live(self) -> None:
        pause = RETRY_SECONDS
        while not self.should_stop:
            app = self._make_app()
            try:
                await self._start(app)
                pause = RETRY_SECONDS
                while not (self._stopped.is_set() or app.crashed or self._failed()):
                    self.tend(app)
                    await asyncio.sleep(TEND_SECONDS)
            except (Exception, asyncio.CancelledError) as error:
                if self.should_stop:
                    raise
                logger.warning("%s could not start, trying again: %r", self._group, error)
            finally:
                await self._end(app)
            if self._failure is not None:
                raise self._failure
            if not self.should_stop:
                logger.warning("%s starts again in %g s: %r", self._group, pause, app.crash_reason)
                await self.sleep(pause)
                pause = min(2 * pause, RETRY_SECONDS_MAX)

    def _make_app(self) -> CordonApp:
        app = cordon_app(self._connection, self._group, self._client)
        app.agent(raw_topic(app, self._topics), name=self._stage_word)(self.take)
        app.on_partitions_assigned.connect(self._assigned, weak=False)
        app.on_partitions_revoked.connect(self._revoked, weak=False)
        return app

    async def _start(self, app: CordonApp) -> None:
        starting = asyncio.ensure_future(app.start())
        while not (starting.done() or self._stopped.is_set() or self._failed()):
            await asyncio.wait([starting], timeout=TEND_SECONDS)
        if starting.done():
            starting.result()
        else:
            # Waiting for Kafka: ends when the app is stopped.
            starting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    async def _end(self, app: CordonApp) -> None:
        await self._shares.revoke(STOP_SECONDS)
        self._acknowledge(app)
        self._forget()
        await stop_app(app, STOP_SECONDS)

    # The group.

    async def _assigned(self, _app: Any, /, *dealt: Collection[TP], signal: Any, **_: Any) -> None:
        del signal
        self._shares.assign([TopicPartition(tp.topic, tp.partition) for tp in dealt[0]])

    async def _revoked(self, app: Any, /, *_revoked: Collection[TP], signal: Any, **_: Any) -> None:
        del signal
        self._metrics.count("rebalances_total", stage=self._stage_word)
        # The others wait for this member, which must be back well before it counts as dead.
        await self._shares.revoke(self._connection.session_ms / 4000)
        # Faust commits what is acknowledged here when there is time; if there is none, it is only read again.
        self._acknowledge(app)
        self._forget()
        try:
            await asyncio.wait_for(app.consumer.commit(), self._connection.session_ms / 8000)
        except TimeoutError:
            logger.info("%s: offsets were not committed before the rebalance", self._group)

    def _forget(self) -> None:
        self._unacked.clear()
        self._paused.clear()

    # Events.

    async def take(self, stream: Any) -> None:
        """Push every event of a stream: the agent itself."""
        async for event in stream.noack().events():
            try:
                self._push(event.app, event.message)
            except Exception:
                # Raising would acknowledge the event. It is not, and the share finds its record in the log.
                logger.exception("%s: %r could not be pushed", self._group, event.message)

    def _push(self, app: Any, message: SinceMessage) -> None:
        source = TopicPartition(message.topic, message.partition)
        feed = self._shares.feed_of(source)
        if feed is None:
            return
        record = Record(message.offset, message.key, message.value, round(message.timestamp * 1000))
        more = feed.push(source, [record], message.since)
        feed.note_end(source, message.end)
        self._pushed += 1
        # The feed holds the bytes now; what waits to be acknowledged needs none.
        message.value = None
        self._unacked.setdefault(source, deque()).append(message)
        if not more:
            self._paused.add(message.tp)
            app.consumer.pause_partitions({message.tp})

    def tend(self, app: Any) -> None:
        """Acknowledge what is flushed, and let partitions go on whose feeds have room again."""
        self._shares.tend()
        self._acknowledge(app)
        for tp in list(self._paused):
            source = TopicPartition(tp.topic, tp.partition)
            feed = self._shares.feed_of(source)
            if feed is None or feed.held_bytes(source) <= self._feed_bytes_max // 2:
                self._paused.discard(tp)
                app.consumer.resume_partitions({tp})

    def _acknowledge(self, app: Any) -> None:
        """Acknowledge, in order, what came before everything that is flushed."""
        for source, waiting in self._unacked.items():
            flushed = self._shares.flushed(source)
            while waiting and waiting[0].offset < flushed:
                waiting.popleft().ack(app.consumer)
