"""The sink on many machines: one `Sink` for each worker over all the partitions it is dealt, fed by a Faust agent.

A share `store/P` is partition P of every topic that has one; they are dealt together and each has a fence. ClickHouse
wants few large inserts, so a worker's sink makes one block of all its shares. A sink lives from one deal to the next:
it is stopped after what it has read is in the store, and the next one finds its place in the store itself.

Invariants: at most one sink writes here; a share whose fence was taken is copied again only after a pause; whatever
else ends a sink is passed on, never swallowed.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from deploy.workers.agents import Agents
from deploy.workers.driver import Standing
from deploy.workers.faust_app import group_of
from ingest.clock import Clock
from ingest.log.feed import Feed
from ingest.log.interface import FencedError, Log, TopicPartition
from ingest.log.kafka.connection import Connection
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.store.interface import Store
from ingest.store.sink import WORDS, Sink, SinkLimits, shares_of
from ingest.topics import Topics

STAGE = "store"
# Over all partitions of a worker that owns everything: records pushed and not yet decoded.
FEEDS_BYTES_MAX = 128 << 20
FEED_BYTES_LEAST = 1 << 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreParts:
    """What a worker's sink is made of.

    Attributes:
        log: Kafka's, behind the feed.
        topics: the lane's.
        settings: of this process.
        store: the lane's ClickHouse, migrated.
        clock: the wall clock.
        metrics: of this process.
        limits: of blocks; None for the usual ones.
    """

    log: Log
    topics: Topics
    settings: Settings
    store: Store
    clock: Clock
    metrics: Metrics
    limits: SinkLimits | None = None


class _Running:
    """One sink in its thread, from one deal to the next."""

    def __init__(self, parts: StoreParts, sources: Collection[TopicPartition], bytes_max: int) -> None:
        """Begin to claim and to copy these partitions."""
        self.sources = frozenset(sources)
        self.feed = Feed(parts.log, self.sources, bytes_max)
        self.failure: BaseException | None = None
        shares = {
            name: [source for source in whole if source in self.sources]
            for name, whole in shares_of(parts.topics).items()
            if any(source in self.sources for source in whole)
        }
        self.sink = Sink(
            self.feed,
            parts.store,
            parts.topics,
            parts.metrics,
            parts.clock,
            parts.limits,
            shares=shares,
            group=group_of(STAGE, parts.settings.lane),
        )
        self._thread = threading.Thread(target=self._run, name="store-sink", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.sink.run()
        except BaseException as error:
            self.failure = error

    @property
    def ended(self) -> bool:
        """Whether its thread is through."""
        return not self._thread.is_alive()

    def stop(self, timeout_seconds: float) -> None:
        """End after what was read is written, bounded; what is not through in time is let go."""
        self.sink.stop()
        self.feed.wake()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            logger.warning("the sink did not end within %g s and is let go", timeout_seconds)
        # From here on it can neither read nor be told that its fences still hold.
        self.feed.close()


class StoreShares:
    """What agents of the store feed; every method but `standings` is called in the event loop."""

    def __init__(self, parts: StoreParts, *, retry_seconds: float) -> None:
        """Own nothing yet.

        Args:
            parts: what sinks are made of.
            retry_seconds: pause before shares whose fence was taken are claimed again.
        """
        self._parts, self._retry_seconds = parts, retry_seconds
        partitions = sum(len(sources) for sources in shares_of(parts.topics).values())
        self.feed_bytes_max = max(FEED_BYTES_LEAST, FEEDS_BYTES_MAX // partitions)
        self._running: _Running | None = None
        self._owned: frozenset[TopicPartition] = frozenset()
        # What the last sink had written: events that are still here may be acknowledged up to it.
        self._flushed: Mapping[TopicPartition, int] = {}
        self._retry_at: float | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._on_failure: Callable[[BaseException], None] = lambda _: None

    @property
    def unfed(self) -> bool:
        """Return False: what was not pushed, the sink finds by itself within seconds, and nothing waits for it."""
        return False

    @property
    def owns_first(self) -> bool:
        """Whether the first share is this worker's: what only one of them may do besides goes with it; any thread."""
        return any(source.partition == 0 for source in self._owned)

    def begin(self, on_failure: Callable[[BaseException], None]) -> None:
        """Take whom to tell of a failure for good."""
        self._on_failure = on_failure

    def assign(self, sources: Collection[TopicPartition]) -> None:
        """Own exactly these partitions."""
        self._owned = frozenset(sources)
        self._parts.metrics.set("owned_partitions", len({s.partition for s in self._owned}), stage=STAGE)
        self._start()

    def _start(self) -> None:
        if self._owned and self._running is None:
            self._running = _Running(self._parts, self._owned, self.feed_bytes_max)

    def tend(self) -> None:
        """Notice how a sink ended, and claim again what was another's for a while."""
        running = self._running
        if running is None or self._restarting is not None:
            return
        failure = running.failure
        if failure is not None and not isinstance(failure, FencedError):
            self._running = None
            running.feed.close()
            self._on_failure(failure)
        elif self._retry_at is not None and time.monotonic() >= self._retry_at:
            self._restarting = asyncio.create_task(self._restart())
        elif self._retry_at is None and (running.sink.lost or failure is not None):
            self._retry_at = time.monotonic() + self._retry_seconds

    async def _restart(self) -> None:
        try:
            await self._end(self._retry_seconds)
            self._start()
        finally:
            self._restarting = None

    def feed_of(self, source: TopicPartition) -> Feed | None:
        """Return where records of a partition are pushed; None: nobody here can take them now."""
        running = self._running
        return running.feed if running is not None and source in running.sources else None

    def flushed(self, source: TopicPartition) -> int:
        """Return the offset before which everything of a partition is in the store; 0 where it is not known."""
        known = self._flushed if self._running is None else self._running.sink.flushed
        return known.get(source, 0)

    async def revoke(self, timeout_seconds: float) -> None:
        """Write what was read, and own nothing any more; bounded."""
        self._owned = frozenset()
        if self._restarting is not None:
            await asyncio.wait([self._restarting], timeout=timeout_seconds)
        await self._end(timeout_seconds)
        self._parts.metrics.set("owned_partitions", 0, stage=STAGE)

    async def _end(self, timeout_seconds: float) -> None:
        running, self._retry_at = self._running, None
        if running is not None:
            await asyncio.to_thread(running.stop, timeout_seconds)
            self._running, self._flushed = None, running.sink.flushed

    def standings(self) -> list[Standing]:
        """Return what the watchdog asks; any thread."""
        running = self._running
        if running is None or running.ended:
            return []
        waiting = running.feed.waiting(running.sink.positions) > 0
        return [Standing("store's sink", STAGE, running.sink.beats, waiting)]


def store_shares(parts: StoreParts) -> StoreShares:
    """Return the shares of this worker; it owns none before its agents do."""
    return StoreShares(parts, retry_seconds=parts.settings.kafka_session_ms / 2000)


def store_agents(parts: StoreParts, connection: Connection, shares: StoreShares | None = None) -> Agents:
    """Return the service that fills the store on this worker, by shares of its own where none are given."""
    settings = parts.settings
    shares = store_shares(parts) if shares is None else shares
    return Agents(
        connection,
        group_of(STAGE, settings.lane),
        settings.worker_name,
        [parts.topics.name(word) for word in WORDS],
        shares,
        parts.metrics,
        stage_word=STAGE,
        feed_bytes_max=shares.feed_bytes_max,
    )
