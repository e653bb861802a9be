"""Fetches: what a leader has from some offsets on, as far as it is committed.

Everything is read committed: a transaction's records show once it was committed, and never past the last stable offset,
where the oldest open transaction begins. The invariant: what comes back holds no record of an aborted transaction and
no transaction marker, and says up to which offset there is nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kafka.errors import KafkaError, NoError, OffsetOutOfRangeError, RetriableError, for_code
from kafka.future import Future
from kafka.protocol.consumer import FetchRequest, ListOffsetsRequest

from ingest.log.interface import TopicPartition
from ingest.log.kafka.batches import Batch, split
from ingest.log.kafka.wire import Deadline, Node, TimedOutError, Wire

READ_COMMITTED = 1
FETCH_BYTES_MAX = 8 << 20
PARTITION_BYTES_MAX = 2 << 20
_EARLIEST, _LATEST = -2, -1
_NO_SESSION, _NO_EPOCH = 0, -1


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one partition had.

    Attributes:
        batches: those with records, in order.
        next: where to go on; between the last of the batches and here there is nothing to read.
        stable: the last stable offset: nothing from there on can be read yet.
        out_of_range: the offset asked for lies before the first one, or beyond the end.
    """

    batches: tuple[Batch, ...] = ()
    next: int = 0
    stable: int = 0
    out_of_range: bool = False


def send_fetch(
    wire: Wire, node: Node, offsets: Mapping[TopicPartition, int], wait_ms: int, deadline: Deadline
) -> Future:
    """Ask one leader for records of partitions; it answers at once if it has any, and after `wait_ms` otherwise."""
    topics: dict[str, list[Any]] = {}
    for source, offset in offsets.items():
        topics.setdefault(source.topic, []).append(
            FetchRequest.FetchTopic.FetchPartition(
                partition=source.partition,
                current_leader_epoch=-1,
                fetch_offset=offset,
                last_fetched_epoch=-1,
                log_start_offset=-1,
                partition_max_bytes=PARTITION_BYTES_MAX if len(offsets) > 1 else FETCH_BYTES_MAX,
            )
        )
    request = FetchRequest(
        max_wait_ms=wait_ms,
        min_bytes=1,
        max_bytes=FETCH_BYTES_MAX,
        isolation_level=READ_COMMITTED,
        session_id=_NO_SESSION,
        session_epoch=_NO_EPOCH,
        topics=[FetchRequest.FetchTopic(topic=name, partitions=partitions) for name, partitions in topics.items()],
        forgotten_topics_data=[],
        rack_id="",
        min_version=4,
        max_version=12,
    )
    return wire.send(node, request, max(deadline.remaining(), 0.001) + wait_ms / 1000)


def take_fetch(
    wire: Wire, answer: Any, offsets: Mapping[TopicPartition, int]
) -> tuple[dict[TopicPartition, Fetched], Any]:
    """Return what each partition had, and a failure that may pass, or None.

    Raises:
        LogError: Kafka refuses, or a batch is corrupt.
    """
    got: dict[TopicPartition, Fetched] = {}
    trouble: Any = None
    top = for_code(answer.error_code)
    if top is not NoError:
        if not issubclass(top, RetriableError):
            raise wire.refused(top())
        return {}, top()
    for topic in answer.responses:
        for one in topic.partitions:
            source = TopicPartition(topic.topic, one.partition_index)
            error = for_code(one.error_code)
            if error is OffsetOutOfRangeError:
                got[source] = Fetched(next=offsets[source], out_of_range=True)
            elif issubclass(error, RetriableError):
                trouble = error()
            elif error is not NoError:
                raise wire.refused(error())
            else:
                got[source] = _committed(one, offsets[source])
    return got, trouble


def _committed(answer: Any, offset: int) -> Fetched:
    """Leave out markers and what was aborted."""
    batches = split(answer.records)
    pending = sorted(answer.aborted_transactions or [], key=lambda one: int(one.first_offset), reverse=True)
    aborted: set[int] = set()
    kept: list[Batch] = []
    for batch in batches:
        while pending and pending[-1].first_offset <= batch.last:
            aborted.add(pending.pop().producer_id)
        if batch.control:
            # The marker ends the producer's transaction, whichever way; aborted ones that follow are listed apart.
            aborted.discard(batch.producer_id)
        elif batch.last >= offset and not (batch.transactional and batch.producer_id in aborted):
            kept.append(batch)
    after = batches[-1].last + 1 if batches else offset
    return Fetched(tuple(kept), max(after, offset), answer.last_stable_offset)


def fetch(wire: Wire, source: TopicPartition, offset: int, deadline: Deadline) -> Fetched:
    """Return what a partition has from `offset` on, without waiting. The caller holds the wire.

    Raises:
        LogUnavailableError: no answer came in time.
    """
    while True:
        offsets = {source: offset}
        try:
            node = wire.leader(source, deadline)
            got, trouble = take_fetch(
                wire, wire.answer(send_fetch(wire, node, offsets, 0, deadline), deadline), offsets
            )
        except KafkaError as error:
            wire.failed(error, deadline)
            continue
        if source in got:
            wire.succeeded()
            return got[source]
        wire.failed(trouble or TimedOutError("a partition is missing in the answer"), deadline)


def bounds(wire: Wire, source: TopicPartition, deadline: Deadline) -> tuple[int, int]:
    """Return a partition's first offset and its last stable one. The caller holds the wire.

    Raises:
        LogUnavailableError: no answer came in time.
    """

    def request(timestamp: int) -> ListOffsetsRequest:
        topic = ListOffsetsRequest.ListOffsetsTopic
        partition = topic.ListOffsetsPartition(
            partition_index=source.partition, current_leader_epoch=-1, timestamp=timestamp
        )
        return ListOffsetsRequest(
            replica_id=-1,
            isolation_level=READ_COMMITTED,
            topics=[topic(name=source.topic, partitions=[partition])],
            min_version=2,
            max_version=7,
        )

    def found(answer: Any) -> Any:
        return answer.topics[0].partitions[0]

    def ask(timestamp: int) -> int:
        answer = wire.ask(
            lambda until: wire.leader(source, until),
            lambda: request(timestamp),
            lambda response: [found(response).error_code],
            deadline,
        )
        wire.require(found(answer).error_code)
        return int(found(answer).offset)

    # In this order: retention may take records in between, and the first offset must never lie beyond the end.
    return ask(_EARLIEST), ask(_LATEST)
