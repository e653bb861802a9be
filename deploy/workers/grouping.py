"""Grouping on many machines: a service that is a member of grouping's consumer group and feeds the shares dealt to it.

It runs inside a Faust app or alone in an event loop. The consumer decides nothing: it is sought to the positions in
each share's state, records go to the share's feed, and what it commits trails the oldest chunk, for people to see lag.

Rebalances take everything from every member and deal it anew (aiokafka speaks the eager protocol only). Shares are
therefore parked, not ended, and resumed without loading where the same partition comes back unclaimed. Loading never
happens inside the consumer's callbacks: no heartbeats are sent during them.

Invariants: records reach a share only after the consumer was sought to its positions; when a rebalance begins, every
share stops writing before this member joins again, unless Kafka itself keeps it waiting; whatever ends a share for
good, except a lost fence, ends the process.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition as Assigned
from mode import Service

from deploy.workers.assignor import CoPartitionAssignor
from deploy.workers.driver import Standing, Words
from deploy.workers.predecessor import remove_predecessors
from deploy.workers.shares import DEVICE_WORDS, STAGE, GroupingPlan, GroupingShare, GroupingShares
from ingest.clock import Clock
from ingest.log.interface import Log, LogError, LogUnavailableError, Record, TopicPartition
from ingest.log.kafka.connection import METADATA_MS, Connection
from ingest.log.owner import GapError
from ingest.metrics import Metrics
from ingest.topics import Topics

POLL_MS = 100
COMMIT_SECONDS = 5.0
STOP_SECONDS = 10.0
# A member that was heard of but does not poll leaves by itself after this: longer than the watchdog waits.
POLL_INTERVAL_MS_MAX = 60_000
FETCH_BYTES_MAX = 16 << 20
PARTITION_FETCH_BYTES_MAX = 512 << 10
AGAIN_SECONDS = 1.0
# So many refusals without a record between them end the process.
REFUSALS_MAX = 5

logger = logging.getLogger(__name__)


def consumer_arguments(connection: Connection, plan: GroupingPlan) -> dict[str, Any]:
    """Return what the consumer is made with; `README.md` says why each value."""
    return {
        **connection.for_aiokafka(),
        "client_id": plan.worker,
        "group_id": plan.group,
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "metadata_max_age_ms": METADATA_MS,
        "session_timeout_ms": plan.session_ms,
        "heartbeat_interval_ms": min(1000, plan.session_ms // 3),
        "rebalance_timeout_ms": plan.session_ms,
        "max_poll_interval_ms": max(POLL_INTERVAL_MS_MAX, 4 * plan.session_ms),
        "request_timeout_ms": max(connection.timeout_ms, plan.session_ms + 2000),
        "fetch_max_bytes": FETCH_BYTES_MAX,
        "max_partition_fetch_bytes": PARTITION_FETCH_BYTES_MAX,
        "fetch_max_wait_ms": 250,
    }


class GroupingService(Service):
    """A worker's grouping: start it, wait until it is stopped, and see `crash_reason`."""

    def __init__(
        self,
        log: Log,
        connection: Connection,
        topics: Topics,
        plan: GroupingPlan,
        words: Words | None,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Prepare; nothing connects before it is started.

        Args:
            log: Kafka's, for state, outputs, and what the consumer missed.
            connection: how the consumer reaches the brokers.
            topics: of the lane.
            plan: what this worker is told.
            words: where its shares say how far they have come.
            clock: the wall clock: paces chunks and commits.
            metrics: of this process.
        """
        super().__init__()
        self._connection, self._topics, self._plan, self._metrics = connection, topics, plan, metrics
        self._names = [topics.name(word) for word in DEVICE_WORDS]
        self._assignor = CoPartitionAssignor()
        self._failed: asyncio.Future[None] | None = None
        self._consuming: asyncio.Future[Any] | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._full: set[TopicPartition] = set()
        self._committed: dict[TopicPartition, int] = {}
        self._committing: asyncio.Task[None] | None = None
        self._commit_at = 0.0
        self._pushed = 0
        self._refusals = 0
        self._shares = GroupingShares(
            lambda number, on_end: GroupingShare(number, log, topics, plan, words, clock, metrics, on_end),
            metrics,
            retry_seconds=plan.session_ms / 2000,
            on_failure=self._fail,
        )

    @property
    def shares(self) -> Sequence[GroupingShare]:
        """The shares that live here."""
        return self._shares.all

    def standings(self) -> list[Standing]:
        """Return what the watchdog asks: of each share, and of the consumer, which must push what the log holds."""
        unfed = any(share.fed and share.driver.unfed for share in self._shares.all)
        return [*self._shares.standings(), Standing("grouping's consumer", STAGE, self._pushed, unfed)]

    async def on_start(self) -> None:
        """Begin to be a member of the group."""
        self._failed = asyncio.get_running_loop().create_future()
        self._consuming = self.add_future(self._consume())

    async def on_stop(self) -> None:
        """End the shares first, so that all they have is written, and leave the group then."""
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(None)
        if self._consuming is not None:
            await asyncio.wait([self._consuming], timeout=STOP_SECONDS + self._plan.session_ms / 1000)

    def _fail(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _consume(self) -> None:
        try:
            await asyncio.to_thread(remove_predecessors, self._connection, self._plan.group, self._plan.worker)
            while not self.should_stop:
                try:
                    await self._be_member()
                except OffsetOutOfRangeError as error:
                    raise GapError(
                        f"grouping's consumer asked for offsets the log does not have ({error}): restart this worker, "
                        f"its owner will say what is missing"
                    ) from error
                except (KafkaError, LogUnavailableError) as error:
                    self._count_refusal(error)
                    logger.warning("not a member of %s, trying again: %s", self._plan.group, error)
                    await self._shares.park(self._park_seconds)
                    await self.sleep(AGAIN_SECONDS)
        finally:
            await self._shares.stop(STOP_SECONDS)

    def _count_refusal(self, error: Exception) -> None:
        """Give up on what no waiting will mend: Kafka answers, and refuses time and again."""
        if getattr(error, "retriable", True):
            return
        self._refusals += 1
        if self._refusals >= REFUSALS_MAX:
            raise LogError(
                f"Kafka refuses grouping's consumer ({error!r}): check its credentials and access rights to the group "
                f"{self._plan.group} and the topics {', '.join(self._names)}"
            ) from error

    @property
    def _park_seconds(self) -> float:
        return self._plan.session_ms / 4000

    async def _be_member(self) -> None:
        consumer = AIOKafkaConsumer(
            **consumer_arguments(self._connection, self._plan), partition_assignment_strategy=[self._assignor]
        )
        try:
            await consumer.start()
            consumer.subscribe(self._names, listener=_Listener(self, consumer))
            deadline = time.monotonic() + self._connection.timeout_ms / 1000
            checked = False
            while not self.should_stop:
                await self._poll(consumer)
                checked = checked or self._check_topics(consumer, deadline)
            await self._shares.stop(STOP_SECONDS)
        finally:
            await self._leave(consumer)

    def _check_topics(self, consumer: AIOKafkaConsumer, deadline: float) -> bool:
        """Return whether the topics are as the settings say; False while the consumer does not know them yet."""
        for name in self._names:
            found = len(consumer.partitions_for_topic(name) or ())
            if not found and time.monotonic() < deadline:
                return False
            if found != self._topics.device_partitions:
                raise LogError(
                    f"topic {name} has {found} partitions where device_partitions says "
                    f"{self._topics.device_partitions}: run `cordon topics apply`, or correct the setting"
                )
        return True

    async def _leave(self, consumer: AIOKafkaConsumer) -> None:
        if self._committing is not None:
            self._committing.cancel()
        try:
            await asyncio.wait_for(consumer.stop(), self._plan.session_ms / 1000)
        except (TimeoutError, KafkaError) as error:
            logger.warning("the group will notice by its session time-out that this worker left: %r", error)

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        """Take what the consumer has got, and do what is due."""
        polling = asyncio.ensure_future(consumer.getmany(timeout_ms=POLL_MS))
        assert self._failed is not None
        try:
            await asyncio.wait([polling, self._failed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not polling.done():
                polling.cancel()
        if self._failed.done():
            self._failed.result()
            return
        self._push(consumer, await polling)
        for share in self._shares.advance():
            self._feed(consumer, share)
        self._refill(consumer)
        self._commit(consumer)

    def _feed(self, consumer: AIOKafkaConsumer, share: GroupingShare) -> None:
        """Have the consumer begin where the share's state ends."""
        positions = share.driver.wait_started(0)
        assigned = consumer.assignment()
        for source in share.sources:
            if Assigned(*source) not in assigned:
                share.fed = False
                return
        for source in share.sources:
            self._positions[source] = positions[source]
            consumer.seek(Assigned(*source), positions[source])
            consumer.resume(Assigned(*source))

    def _push(self, consumer: AIOKafkaConsumer, found: Mapping[Assigned, Sequence[ConsumerRecord]]) -> None:
        for assigned, got in found.items():
            share = self._shares.fed(assigned.partition)
            source = TopicPartition(assigned.topic, assigned.partition)
            if share is None or not got:
                continue
            records = [Record(one.offset, one.key, one.value, one.timestamp) for one in got]
            more = share.feed.push(source, records, self._positions[source])
            self._pushed += len(records)
            self._refusals = 0
            self._positions[source] = records[-1].offset + 1
            share.feed.note_end(source, consumer.last_stable_offset(assigned) or 0)
            if not more:
                consumer.pause(assigned)
                self._full.add(source)

    def _refill(self, consumer: AIOKafkaConsumer) -> None:
        for source in list(self._full):
            share = self._shares.fed(source.partition)
            if share is None or share.feed.held_bytes(source) < self._plan.feed_bytes_max // 2:
                self._full.discard(source)
                if share is not None:
                    consumer.resume(Assigned(*source))

    def _commit(self, consumer: AIOKafkaConsumer) -> None:
        now = time.monotonic()
        if now < self._commit_at or (self._committing is not None and not self._committing.done()):
            return
        self._commit_at = now + COMMIT_SECONDS
        due = {
            source: offset
            for share in self._shares.all
            if share.fed
            for source, offset in share.feed.to_commit.items()
            if self._committed.get(source) != offset
        }
        if due:
            self._committing = asyncio.create_task(self._commit_now(consumer, due))

    async def _commit_now(self, consumer: AIOKafkaConsumer, due: Mapping[TopicPartition, int]) -> None:
        try:
            offsets = {Assigned(*source): offset for source, offset in due.items()}
            await asyncio.wait_for(consumer.commit(offsets), COMMIT_SECONDS)
            self._committed.update(due)
        except (KafkaError, TimeoutError) as error:
            # They decide nothing, and the next ones say it all.
            logger.info("offsets were not committed: %r", error)

    async def revoked(self) -> None:
        """Park every share: a rebalance begins."""
        self._metrics.count("rebalances_total", stage=STAGE)
        self._full.clear()
        self._committed.clear()
        await self._shares.park(self._park_seconds)

    def assigned(self, consumer: AIOKafkaConsumer, dealt: Collection[Assigned]) -> None:
        """Own what was dealt; nothing is fetched before a share is ready for it."""
        for one in dealt:
            consumer.pause(one)
            # A position of some sort, or the consumer would look for a committed one, which decides nothing here.
            consumer.seek(one, 0)
        numbers = {one.partition for one in dealt}
        whole = {number for number in numbers if all(Assigned(name, number) in dealt for name in self._names)}
        if whole != numbers:
            logger.error("partitions %s were dealt without their twins", sorted(numbers - whole))
        self._shares.assign(whole)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is not typed
    """Passes on what the group's coordinator says."""

    def __init__(self, service: GroupingService, consumer: AIOKafkaConsumer) -> None:
        self._service, self._consumer = service, consumer

    async def on_partitions_revoked(self, revoked: Collection[Assigned]) -> None:
        """Park whatever there is: everything is taken, `revoked` says nothing more."""
        del revoked
        await self._service.revoked()

    async def on_partitions_assigned(self, assigned: Collection[Assigned]) -> None:
        """Own what was dealt."""
        # One at a time and without a pause: no heartbeat is sent meanwhile.
        self._service.assigned(self._consumer, assigned)
