"""Batches on their way to the leaders, one for each partition, with an identity that makes repeats harmless.

Beneath the shared producer and the fenced writers. A batch carries producer id, epoch and sequence, so a try whose
answer was lost may be repeated: the broker knows it and answers with its offset. The invariant: of each entry it is
known afterwards whether it is in the log, is not, or may be; "is not" is never said of one that may yet appear.
"""

from collections.abc import Iterable, Mapping, Sequence
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
from kafka.protocol.producer import ProduceRequest

from ingest.log.interface import Entry, LogError, TopicPartition, UnknownTopicError
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


@dataclass(slots=True)
class Sent:
    """What became of entries, by their places; filled in while they are sent, whatever ends that.

    Attributes:
        offsets: of those that are in the log.
        refused: why Kafka refuses those of a partition: a LogError, or one of `IDENTITY_LOST`.
        doubtful: those that were sent and may be there or not.
    """

    offsets: dict[int, int] = field(default_factory=dict)
    refused: dict[int, BaseException] = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)


def produce(wire: Wire, identity: Identity, entries: Sequence[Entry], now_ms: int, deadline: Deadline) -> list[int]:
    """Send the entries and return their offsets, in the order given. The caller holds the wire.

    Raises:
        LogUnavailableError: not all were acknowledged in time.
        LogError: a batch is refused for good.
        KafkaError: one of `IDENTITY_LOST`.
    """
    sent = Sent()
    send(wire, identity, entries, now_ms, deadline, sent)
    for error in sent.refused.values():
        raise error
    return [sent.offsets[place] for place in range(len(entries))]


def send(wire: Wire, identity: Identity, entries: Sequence[Entry], now_ms: int, deadline: Deadline, sent: Sent) -> None:
    """Send the entries, up to the first refusal, and note in `sent` what became of each. The caller holds the wire.

    A partition's entries are in the log in their order, as a whole where one batch can hold them.

    Raises:
        LogUnavailableError: not all were acknowledged in time.
        LogError: Kafka refuses the connection.
    """
    places: dict[TopicPartition, list[int]] = {}
    for place, entry in enumerate(entries):
        places.setdefault(TopicPartition(entry.topic, entry.partition), []).append(place)
    rounds = {source: _chunks(entries, mine) for source, mine in places.items()}
    for turn in range(max(map(len, rounds.values()), default=0)):
        mine = {source: chunks[turn] for source, chunks in rounds.items() if len(chunks) > turn}
        batches = {}
        for source, chunk in mine.items():
            records: Records = [(entries[place].key, entries[place].value) for place in chunk]
            batches[source] = _batch(identity, source, records, now_ms)
        flight = _Flight(wire, identity, batches)
        try:
            flight.land(deadline)
        finally:
            flight.tell(mine, sent)
        if sent.refused:
            return


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


class _Flight:
    """Batches, one for each partition, on their way to the leaders."""

    def __init__(self, wire: Wire, identity: Identity, batches: Mapping[TopicPartition, bytearray]) -> None:
        self._wire = wire
        self._identity = identity
        self._pending = dict(batches)
        self._first: dict[TopicPartition, int] = {}
        self._refused: dict[TopicPartition, BaseException] = {}
        # Sent, and not known to be there or to be refused.
        self._doubtful: set[TopicPartition] = set()

    def land(self, deadline: Deadline) -> None:
        """Send each batch to its leader until all are acknowledged, or one is refused.

        A partition without a leader does not hold up the others.
        """
        while self._pending and not self._refused:
            nodes: dict[Node, list[TopicPartition]] = {}
            for source in self._pending:
                node = self._wire.known_leader(source, deadline)
                if node is not None:
                    nodes.setdefault(node, []).append(source)
            if not nodes:
                self._await_leader(next(iter(self._pending)), deadline)
                continue
            trouble = self._try(nodes, deadline)
            for source in self._first:
                self._pending.pop(source, None)
            if trouble is None:
                self._wire.succeeded()
            elif not self._refused:
                self._wire.failed(trouble, deadline)

    def tell(self, places: Mapping[TopicPartition, Sequence[int]], sent: Sent) -> None:
        """Note what became of each partition's entries."""
        for source, mine in places.items():
            if source in self._first:
                sent.offsets.update((place, self._first[source] + number) for number, place in enumerate(mine))
            if source in self._refused:
                sent.refused.update((place, self._refused[source]) for place in mine)
            if source in self._doubtful:
                sent.doubtful.update(mine)

    def _await_leader(self, source: TopicPartition, deadline: Deadline) -> None:
        try:
            self._wire.leader(source, deadline)
        except UnknownTopicError as error:
            self._refused[source] = error

    def _try(self, nodes: Mapping[Node, Sequence[TopicPartition]], deadline: Deadline) -> BaseException | None:
        """Send to each leader and hear all of them; return a failure that may pass."""
        # What is refused now may be there all the same, if it was sent before and nobody told what became of it.
        before = set(self._doubtful)
        answers = []
        for node, sources in nodes.items():
            self._doubtful.update(sources)
            request = _request(self._identity, sources, self._pending, deadline)
            answers.append((sources, self._wire.send(node, request, deadline.remaining())))
        trouble: BaseException | None = None
        for sources, future in answers:
            trouble = self._take(sources, future, deadline) or trouble
        self._doubtful -= self._first.keys() | (self._refused.keys() - before)
        return trouble

    def _take(self, sources: Iterable[TopicPartition], future: Future, deadline: Deadline) -> BaseException | None:
        """Note what one leader answered; return a failure that may pass."""
        try:
            answer = self._wire.answer(future, deadline)
        except KafkaError as failure:
            if not retriable(failure):
                raise self._wire.refused(failure) from failure
            network: BaseException = failure
            return network
        trouble: BaseException | None = None
        for topic in answer.responses:
            for one in topic.partition_responses:
                source = TopicPartition(topic.name, one.index)
                error: BaseException = for_code(one.error_code)(one.error_message)
                if one.error_code == 0:
                    self._first[source] = one.base_offset
                elif isinstance(error, RetriableError):
                    trouble = error
                else:
                    self._refused[source] = _refusal(self._wire, source, error)
        if trouble is None and any(source not in self._first and source not in self._refused for source in sources):
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
