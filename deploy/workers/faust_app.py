"""A Faust app as Cordon runs it: inside a running loop, without web view, tables, topics of its own or a producer.

It stands between a Kafka consumer group and the agents (`agents`). Detection, signals and the sink have an app each,
for a Faust app is one consumer group, and each of these groups shares out its partitions by itself.

Invariants: reads are `read_committed`, so nothing is derived from a transaction that was aborted; partitions of equal
number go to the same member (`verdicts/3` with `commands/3`), for they are one share of the work; and a message says
since which offset it is the next one, so that a hole which Faust left is told from one that is the log's own.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiokafka
import faust
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from deploy.workers.assignor import CoPartitionAssignor
from deploy.workers.predecessor import remove_predecessors
from ingest.log.kafka.connection import METADATA_MS, Connection

# Messages that Faust holds between consumer and agent, over all partitions, before it stops fetching.
BUFFERED_MAX: Final = 256
FETCH_BYTES_MAX: Final = 1 << 20
COMMIT_SECONDS: Final = 2.0
CONNECT_SECONDS: Final = 0.5
# A consumer that fetches nothing for so long leaves its group. The watchdog ends a process that stands still far
# earlier; this is the net below it, and long enough for a feed that is full.
POLL_SECONDS_MAX: Final = 300.0

logger = logging.getLogger(__name__)


class SinceMessage(ConsumerMessage):
    """A message that knows what was before it.

    Attributes:
        since: the log has nothing between this offset and the message's own; the message's own where that is not known.
        end: the partition's end as the broker told it with the fetch; 0 where it did not.
    """

    __slots__ = ("end", "since")

    since: int
    end: int


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with the consumer that Cordon wants in it."""

    def _create_worker_consumer(self, _transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        """Return the group's consumer: as Faust makes it, but reading what is committed, and dealt to alike."""
        conf = self.app.conf
        app = self.app
        assert isinstance(app, CordonApp)
        self._assignor = CoPartitionAssignor()
        self._chain: dict[TP, tuple[int, int]] = {}
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            partition_assignment_strategy=[self._assignor],
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_interval_ms=int(POLL_SECONDS_MAX * 1000),
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            metadata_max_age_ms=METADATA_MS,
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            **app.connection.for_aiokafka(),
        )

    async def on_start(self) -> None:
        """Connect, however long Kafka is away: raising would end the thread with a traceback each time.

        Before this member joins, a dead one of its name is taken out of the group.
        """
        self._consumer = None
        while not self.should_stop:
            consumer = self._create_consumer(loop=self.thread_loop)
            self.time_started = time.monotonic()
            try:
                await consumer.start()
            except KafkaError as error:
                logger.warning("%s can't reach Kafka, trying again: %s", self.app.conf.id, error)
                await consumer.stop()
                await asyncio.sleep(CONNECT_SECONDS)
            else:
                self._consumer = consumer
                conf, app = self.app.conf, self.app
                assert isinstance(app, CordonApp)
                await asyncio.to_thread(remove_predecessors, app.connection, conf.id, conf.broker_client_id)
                return

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - Faust's signature
        max_records: int | None = None,
    ) -> Any:
        """Fetch as Faust does, and note for each record since which offset it is the next.

        Records of one fetch follow each other without a hole that is not the log's own (the mark of a transaction's
        end, what was aborted, what compaction took), and up to the position the consumer has after them. No word is
        given for what lies between that position and the next fetch, should it begin elsewhere: a seek, a reset after
        retention, a new assignment all look like that.
        """
        fetched = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        return {tp: self._chained(consumer, tp, records) for tp, records in fetched.items()}

    def _chained(
        self, consumer: aiokafka.AIOKafkaConsumer, tp: TP, records: Sequence[Any]
    ) -> list[tuple[Any, int, int]]:
        state = consumer._subscription.subscription.assignment.state_value(tp)
        position, behind = self._chain.get(tp, (-1, -1))
        chained: list[tuple[Any, int, int]] = []
        for record in records:
            since = behind if record.offset == position or chained else record.offset
            chained.append((record, since, self.highwater(tp) or 0))
            behind = record.offset + 1
        if chained:
            # Gone while it was fetched: a rebalance, after which nothing is known of what lies between.
            position = behind if state is None else max(behind, state.position)
            self._chain[tp] = (position, behind)
        return chained

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit, and take a failure for what it is: nothing depends on these commits, the next one says it again."""
        consumer = self._ensure_consumer()
        owned = self.assignment()
        wanted = {
            driver.ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in owned
        }
        try:
            await consumer.commit(wanted)
        except KafkaError as error:
            logger.warning("%s could not commit (%r); a later commit says it again", self.app.conf.id, error)
            return False
        return True

    def highwater(self, tp: TP) -> int:
        """Return the end of what is committed in a partition."""
        end: int = self._ensure_consumer().last_stable_offset(driver.ensure_aiokafka_TP(tp))
        return end

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Leave looking for stalls to the watchdog, which does not live in this loop."""


class _Consumer(driver.Consumer):
    """Faust's consumer round our thread."""

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        found, since, end = record
        message = SinceMessage(
            found.topic,
            found.partition,
            found.offset,
            found.timestamp / 1000.0,
            found.timestamp_type,
            found.headers,
            found.key,
            found.value,
            found.checksum,
            found.serialized_key_size,
            found.serialized_value_size,
            tp,
            generation_id=self.app.consumer_generation_id,
        )
        message.since = since
        message.end = end
        return message


class _Transport(driver.Transport):
    """Faust's Kafka transport with our consumer."""

    Consumer = _Consumer


class _Boot(BootStrategy):
    """What is started: the consumer and the agents. What agents say goes through the log's own producers."""

    enable_kafka_producer = False
    enable_web = False


class CordonApp(faust.App):
    """A Faust app that keeps its hands off everything but its consumer group."""

    BootStrategy = _Boot

    def __init__(self, connection: Connection, *args: Any, **arguments: Any) -> None:
        """Take how Kafka is reached; the other arguments are Faust's."""
        self.connection = connection
        super().__init__(*args, **arguments)

    def _new_transport(self) -> _Transport:
        return _Transport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Make no folder: there is nothing to keep in one."""


def group_of(stage: str, lane: str) -> str:
    """Return the name of the consumer group that shares out a stage's partitions in a lane."""
    return f"cordon-{lane}-{stage}"


def cordon_app(connection: Connection, group: str, client: str) -> CordonApp:
    """Return a Faust app for one consumer group, to be started inside the running event loop.

    Args:
        connection: how Kafka is reached; its `session_ms` is how long a dead worker keeps its partitions.
        group: name of the consumer group, which is the app's id.
        client: this process's name, for the broker's logs.
    """
    session_seconds = connection.session_ms / 1000
    # A join is answered when the rebalance ends, which may take a session.
    request_seconds = max(connection.timeout_ms / 1000, session_seconds + 2.0)
    app = CordonApp(
        connection,
        group,
        **connection.for_faust(),
        broker_client_id=client,
        broker_session_timeout=session_seconds,
        # Three chances to be heard in a session, and how soon a member hears that a rebalance began.
        broker_heartbeat_interval=min(1.0, session_seconds / 3),
        # A member that does not come back from a rebalance holds the others up this long.
        broker_rebalance_timeout=session_seconds,
        broker_request_timeout=request_seconds,
        broker_max_poll_interval=POLL_SECONDS_MAX,
        broker_commit_interval=COMMIT_SECONDS,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=BUFFERED_MAX,
        # A rebalance must not wait for events that only a flush acknowledges.
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
        store="memory://",
        datadir=Path("unused"),
    )
    app.finalize()
    return app


def raw_topic(app: faust.App, names: Iterable[str]) -> Any:
    """Return a topic description whose events carry the bytes of the log, untouched."""
    return app.topic(*names, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


async def stop_app(app: faust.App, timeout_seconds: float) -> None:
    """Stop an app, bounded; one that hangs is left behind, which its group notices after a session."""
    try:
        async with asyncio.timeout(timeout_seconds):
            await app.stop()
    except TimeoutError:
        logger.warning("%s did not stop within %g s and was left behind", app.conf.id, timeout_seconds)
