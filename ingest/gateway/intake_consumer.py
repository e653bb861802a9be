"""The intake topic's consumer: kafka-python in a thread of its own, round `IntakeStage` on the gateway's event loop.

Several gateways share the topic as one consumer group. Of each partition one batch is under way at a time and the
partition is paused meanwhile, which is the backpressure: a gateway that is overloaded reads nothing more, while polling
goes on, so that the group does not think it dead. The invariant: an offset is committed only once everything before it
is durably accepted or dead-lettered; whatever ends otherwise is read again.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from ingest.gateway.intake import IntakeRecord
from ingest.log.interface import Record, TopicPartition
from ingest.log.kafka.connection import METADATA_MS, Connection
from ingest.topics import Topics

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
BATCH_RECORDS_MAX = 500
FETCH_BYTES_MAX = 16 << 20
_POLL_MS = 250
_POLL_BUSY_MS = 20
_CLOSE_MS = 5000


class Taker(Protocol):
    """Takes the records of a partition."""

    def take(self, source: TopicPartition, records: Sequence[IntakeRecord]) -> Coroutine[Any, Any, None]:
        """Return once everything in them is durable somewhere."""
        ...


@dataclass(slots=True)
class _Batch:
    """Records of one partition under way."""

    taking: "Future[None]"
    next_offset: int


def intake_consumer(connection: Connection, topics: Topics, client: str) -> KafkaConsumer:
    """Connect a member of the intake's consumer group; blocks, and fails where Kafka is away.

    Raises:
        KafkaError: no broker answered in time.
    """
    return KafkaConsumer(
        **connection.for_kafka_python(),
        client_id=client,
        group_id=f"cordon-{topics.lane}-intake",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        # A foreign producer that takes back a transaction has not said anything.
        isolation_level="read_committed",
        allow_auto_create_topics=False,
        metadata_max_age_ms=METADATA_MS,
        session_timeout_ms=connection.session_ms,
        heartbeat_interval_ms=connection.session_ms // 4,
        request_timeout_ms=max(connection.timeout_ms, connection.session_ms + 1000),
        bootstrap_timeout_ms=connection.timeout_ms,
        reconnect_backoff_max_ms=1000,
        max_poll_records=BATCH_RECORDS_MAX,
        fetch_max_bytes=FETCH_BYTES_MAX,
        max_partition_fetch_bytes=FETCH_BYTES_MAX // 4,
        metrics_enabled=False,
    )


class IntakeConsumer:
    """Reads the intake topic until stopped."""

    def __init__(
        self, stage: Taker, topics: Topics, connect: Callable[[], KafkaConsumer], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Read nothing before `start`.

        Args:
            stage: takes the records, on `loop`.
            topics: the lane's names.
            connect: makes the consumer, in the thread; called again after a failure.
            loop: the gateway's event loop.
        """
        self._stage = stage
        self._topic = topics.name("intake")
        self._connect = connect
        self._loop = loop
        self._stop = threading.Event()
        self._batches: dict[KafkaPartition, _Batch] = {}
        self._thread = threading.Thread(target=self._run, name="gateway-intake", daemon=True)

    def start(self) -> None:
        """Begin; Kafka may be away."""
        self._thread.start()

    def stop(self) -> None:
        """End. Blocks until the consumer has left its group; what is under way is read again by another one.

        Call it from another thread than the loop's, and before the gateway drains.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        away = False
        while not self._stop.is_set():
            consumer: KafkaConsumer | None = None
            try:
                consumer = self._connect()
                consumer.subscribe([self._topic], listener=_Revoked(self))
                away = False
                while not self._stop.is_set():
                    self._turn(consumer)
            except Exception as error:
                # Whatever it is, what was not committed is read again.
                if not away:
                    logger.error("the intake topic can't be read now, trying on: %s: %s", type(error).__name__, error)
                away = True
                self._stop.wait(RETRY_SECONDS)
            finally:
                self.drop(list(self._batches))
                _close(consumer)

    def _turn(self, consumer: KafkaConsumer) -> None:
        polled = consumer.poll(timeout_ms=_POLL_BUSY_MS if self._batches else _POLL_MS, max_records=BATCH_RECORDS_MAX)
        for source, records in polled.items():
            consumer.pause(source)
            taken = [
                IntakeRecord(Record(one.offset, one.key, one.value, one.timestamp), one.headers) for one in records
            ]
            taking = self._stage.take(TopicPartition(source.topic, source.partition), taken)
            future = asyncio.run_coroutine_threadsafe(taking, self._loop)
            self._batches[source] = _Batch(future, records[-1].offset + 1)
        _keep_join(consumer)
        self.settle(consumer)

    def settle(self, consumer: KafkaConsumer) -> None:
        """Commit the batches that are done, and read on in their partitions."""
        done = {source: batch for source, batch in self._batches.items() if batch.taking.done()}
        for source, batch in done.items():
            del self._batches[source]
            batch.taking.result()
        if done:
            consumer.commit({source: OffsetAndMetadata(batch.next_offset) for source, batch in done.items()})
            consumer.resume(*done)

    def drop(self, sources: Iterable[KafkaPartition]) -> None:
        """Forget what is under way of partitions that are somebody else's now, or are read again."""
        for source in sources:
            batch = self._batches.pop(source, None)
            if batch is not None:
                batch.taking.cancel()


class _Revoked(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python is not typed
    """Lets go of partitions that are dealt anew; what was not committed of them is read by the next one."""

    def __init__(self, intake: IntakeConsumer) -> None:
        self._intake = intake

    def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        """Drop what is under way."""
        self._intake.drop(revoked)

    def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        """Read from the committed offsets, as the consumer does by itself."""


def _keep_join(consumer: KafkaConsumer) -> None:
    """Have the next poll finish a join that the end of this one has left under way.

    Where topics that changed began the join (none were known of a broker that had just started), kafka-python 3.0 takes
    it for done once it has dealt, and never hears what was dealt: the member owns nothing and is out after a session.
    """
    coordinator = consumer._coordinator
    if coordinator._join_task is not None:
        coordinator.rejoin_needed = True


def _close(consumer: KafkaConsumer | None) -> None:
    if consumer is None:
        return
    try:
        consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)
    except KafkaError as error:
        logger.warning("the intake's consumer did not leave its group in order: %s", error)
