"""Appends: entries to one batch a partition, sent to the leaders, with an identity that makes repeats harmless.

A batch carries producer id, epoch and sequence, so a try whose answer was lost may be repeated: the broker knows it and
answers with its offset. The invariant: when an append has failed, no batch of it can appear after a later append of the
same identity in the same partition, because the epoch is raised first and brokers refuse the older one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kafka.errors import (
    InvalidProducerEpochError,
    InvalidProducerIdMappingError,
    InvalidTxnStateError,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumberError,
    ProducerFencedError,
    RecordListTooLargeError,
    RetriableError,
    TransactionAbortableError,
    UnknownProducerIdError,
    for_code,
)
from kafka.future import Future
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from ingest.clock import Clock
from ingest.log.interface import Entry, LogError, LogUnavailableError, TopicPartition
from ingest.log.kafka.batches import BATCH_BYTES_MAX, build
from ingest.log.kafka.wire import Deadline, Node, TimedOutError, Wire, retriable

# What brokers say to an identity that is not the newest one, or of which they have lost track.
IDENTITY_LOST = (
    InvalidProducerEpochError,
    ProducerFencedError,
    InvalidProducerIdMappingError,
    InvalidTxnStateError,
    OutOfOrderSequenceNumberError,
    UnknownProducerIdError,
    TransactionAbortableError,
)
_EPOCH_MAX = 32_000
_SEQUENCES = 1 << 31
_ALL = -1
_RECORD_OVERHEAD_BYTES = 32

Records = list[tuple[bytes | None, bytes | None]]


@dataclass(slots=True)
class Identity:
    """Who writes: what brokers tell repeats and stale writers by.

    Attributes:
        producer_id: given by the cluster.
        epoch: the newest one wins.
        transactional_id: None for a producer without transactions.
        sequences: the next sequence number of each partition in this epoch.
    """

    producer_id: int
    epoch: int
    transactional_id: str | None = None
    sequences: dict[TopicPartition, int] = field(default_factory=dict)

    def raised(self) -> "Identity | None":
        """Return the same producer with the next epoch, or None where there is none left."""
        return Identity(self.producer_id, self.epoch + 1) if self.epoch < _EPOCH_MAX else None


class Producer:
    """The unfenced appends of one log, one at a time: that is what keeps their order."""

    def __init__(self, wire: Wire, clock: Clock) -> None:
        """Take a wire; nothing is sent before the first append."""
        self._wire = wire
        self._clock = clock
        self._identity: Identity | None = None
        self._spent = False

    def append(self, entries: Sequence[Entry], deadline: Deadline) -> list[int]:
        """Append the entries and return their offsets.

        Raises:
            LogUnavailableError: some may be there, some not; append them again.
            LogError: Kafka refuses them.
        """
        with self._wire.held(deadline):
            identity = self._renewed(deadline)
            self._spent = True
            try:
                offsets = produce(self._wire, identity, entries, self._clock.now_ms(), deadline)
            except IDENTITY_LOST as error:
                raise LogUnavailableError(
                    f"Kafka has lost track of this producer ({type(error).__name__}): append again, as a new one"
                ) from error
            self._spent = False
            return offsets

    def _renewed(self, deadline: Deadline) -> Identity:
        if self._spent and self._identity is not None:
            # Brokers need not be told: the first batch of the new epoch shuts out the older one.
            self._identity = self._identity.raised()
        if self._identity is None:
            self._identity = _identified(self._wire, deadline)
        self._spent = False
        return self._identity


def _identified(wire: Wire, deadline: Deadline) -> Identity:
    answer = wire.ask(
        wire.any_node,
        lambda: InitProducerIdRequest(
            transactional_id=None, transaction_timeout_ms=0, producer_id=-1, producer_epoch=-1, max_version=4
        ),
        lambda response: [response.error_code],
        deadline,
    )
    wire.require(answer.error_code)
    return Identity(answer.producer_id, answer.producer_epoch)


def produce(wire: Wire, identity: Identity, entries: Sequence[Entry], now_ms: int, deadline: Deadline) -> list[int]:
    """Send the entries and return their offsets, in the order given. The caller holds the wire.

    Raises:
        LogUnavailableError: not all were acknowledged in time.
        LogError: a batch is refused for good.
        KafkaError: one of `IDENTITY_LOST`.
    """
    places: dict[TopicPartition, list[int]] = {}
    for place, entry in enumerate(entries):
        places.setdefault(TopicPartition(entry.topic, entry.partition), []).append(place)
    rounds = {source: _chunks(entries, mine) for source, mine in places.items()}
    offsets = [-1] * len(entries)
    turn = 0
    while any(len(chunks) > turn for chunks in rounds.values()):
        mine = {source: chunks[turn] for source, chunks in rounds.items() if len(chunks) > turn}
        batches = {}
        for source, chunk in mine.items():
            records: Records = [(entries[place].key, entries[place].value) for place in chunk]
            batches[source] = _batch(identity, source, records, now_ms)
        for source, first in _send(wire, identity, batches, deadline).items():
            for number, place in enumerate(mine[source]):
                offsets[place] = first + number
        turn += 1
    return offsets


def _chunks(entries: Sequence[Entry], places: Sequence[int]) -> list[list[int]]:
    """Cut one partition's entries into batches that every broker takes; a large value has one of its own."""
    chunks: list[list[int]] = []
    room = 0
    for place in places:
        size = len(entries[place].key or b"") + len(entries[place].value or b"") + _RECORD_OVERHEAD_BYTES
        if size > room or not chunks:
            chunks.append([])
            room = BATCH_BYTES_MAX
        chunks[-1].append(place)
        room -= size
    return chunks


def _batch(identity: Identity, source: TopicPartition, records: Records, now_ms: int) -> bytearray:
    sequence = identity.sequences.get(source, 0)
    identity.sequences[source] = (sequence + len(records)) % _SEQUENCES
    return build(
        records,
        now_ms,
        identity.producer_id,
        identity.epoch,
        sequence,
        transactional=identity.transactional_id is not None,
    )


def _send(
    wire: Wire, identity: Identity, batches: Mapping[TopicPartition, bytearray], deadline: Deadline
) -> dict[TopicPartition, int]:
    """Send each batch to its leader until all are acknowledged; return their first offsets."""
    pending = dict(batches)
    first: dict[TopicPartition, int] = {}
    while pending:
        nodes: dict[Node, list[TopicPartition]] = {}
        for source in pending:
            nodes.setdefault(wire.leader(source, deadline), []).append(source)
        answers = [
            (sources, wire.send(node, _request(identity, sources, pending, deadline), deadline.remaining()))
            for node, sources in nodes.items()
        ]
        trouble: BaseException | None = None
        for sources, future in answers:
            trouble = _take(wire, sources, future, first, deadline) or trouble
        for source in first:
            pending.pop(source, None)
        if trouble is None:
            wire.succeeded()
        else:
            wire.failed(trouble, deadline)
    return first


def _take(
    wire: Wire,
    sources: Sequence[TopicPartition],
    future: Future,
    first: dict[TopicPartition, int],
    deadline: Deadline,
) -> BaseException | None:
    """Note what one leader acknowledged; return a failure that may pass."""
    try:
        answer = wire.answer(future, deadline)
    except KafkaError as failure:
        if not retriable(failure):
            raise wire.refused(failure) from failure
        network: BaseException = failure
        return network
    trouble: BaseException | None = None
    for topic in answer.responses:
        for one in topic.partition_responses:
            source = TopicPartition(topic.name, one.index)
            if one.error_code == 0:
                first[source] = one.base_offset
                continue
            error: BaseException = for_code(one.error_code)(one.error_message)
            if not isinstance(error, RetriableError):
                raise _refusal(wire, source, error)
            trouble = error
    if trouble is None and any(source not in first for source in sources):
        return TimedOutError("a partition is missing in the answer")
    return trouble


def _refusal(wire: Wire, source: TopicPartition, error: BaseException) -> BaseException:
    if type(error) in IDENTITY_LOST:
        return error
    if isinstance(error, (MessageSizeTooLargeError, RecordListTooLargeError)):
        return LogError(
            f"{source.topic} takes no batch this large: set max.message.bytes of the topic (`cordon topics apply`) and "
            f"message.max.bytes of the brokers to at least 1 MiB and 64 KiB"
        )
    return wire.refused(error)


def _request(
    identity: Identity,
    sources: Sequence[TopicPartition],
    batches: Mapping[TopicPartition, bytearray],
    deadline: Deadline,
) -> ProduceRequest:
    topic_data = ProduceRequest.TopicProduceData
    topics: dict[str, list[ProduceRequest.TopicProduceData.PartitionProduceData]] = {}
    for source in sources:
        data = topic_data.PartitionProduceData(index=source.partition, records=batches[source])
        topics.setdefault(source.topic, []).append(data)
    return ProduceRequest(
        transactional_id=identity.transactional_id,
        acks=_ALL,
        timeout_ms=max(1, int(deadline.remaining() * 1000)),
        topic_data=[topic_data(name=name, partition_data=partitions) for name, partitions in topics.items()],
        min_version=3,
        max_version=9,
    )
