"""Fenced appends and commits: one transaction each, under the transactional id of the fence's name.

What makes them exact although answers get lost: a transaction whose end nobody told is settled before the next one.
Taking the transactional id anew makes the coordinator finish it, one way or the other; then its first record is either
there for readers of what is committed, or it never will be. An append repeated after such a loss, as the `Owner`
repeats it, returns the offsets it already has.

Invariants:
    - A fence is checked against the newest claim before *and* after its transactional id is taken, so that whoever
      takes it last knows whether it may.
    - When an append returns, its records can be read: the transaction's markers are written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from kafka.errors import for_code
from kafka.protocol.metadata import CoordinatorType
from kafka.protocol.producer import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)

from ingest.claims import Claim
from ingest.clock import Clock
from ingest.log.interface import Entry, Fence, FencedError, LogError, LogUnavailableError, TopicPartition
from ingest.log.kafka.fences import Claims
from ingest.log.kafka.fetch import fetch
from ingest.log.kafka.produce import IDENTITY_LOST, Identity, produce
from ingest.log.kafka.wire import Deadline, Node, Wire

ABORT_SECONDS_MAX = 1.0


@dataclass(frozen=True, slots=True)
class _Unsettled:
    """A transaction that was to be committed; nobody told whether it was."""

    entries: tuple[Entry, ...]
    offsets: tuple[int, ...]


class FencedWriter:
    """The writer of one name in one lane: claims it, appends and commits under its fences."""

    def __init__(
        self,
        name: str,
        transactional_id: str,
        wire: Wire,
        claims: Claims,
        clock: Clock,
        *,
        transaction_ms: int,
        client: str,
    ) -> None:
        """Take a wire; nothing is sent before the first call."""
        self._name = name
        self._id = transactional_id
        self._wire = wire
        self._claims = claims
        self._clock = clock
        self._transaction_ms = transaction_ms
        self._client = client
        self._identity: Identity | None = None
        self._epoch: int | None = None
        self._unsettled: _Unsettled | None = None

    def claim(self, deadline: Deadline) -> Fence:
        """Claim the name; see `Log.claim`."""
        claim = Claim(name=self._name, claimed_by=self._client, at_ms=self._clock.now_ms())
        source = self._claims.source
        entry = Entry(source.topic, source.partition, self._name.encode(), msgspec.json.encode(claim))
        with self._wire.held(deadline):
            while True:
                self._identity = self._epoch = self._unsettled = None
                try:
                    (epoch,) = self._appended([entry], self._taken(deadline), deadline)
                    # Visible before it is returned: another writer's open claim may hold readers of the topic up.
                    while not self._claims.seen(self._name, epoch, self._wire, deadline):
                        if deadline.remaining() <= 0:
                            raise self._wire.unavailable(deadline)
                        self._wire.pause(deadline)
                except IDENTITY_LOST as error:
                    # Somebody else claims the name at the same moment: one of the two will be the later one.
                    self._again(error, deadline)
                else:
                    self._epoch = epoch
                    return Fence(self._name, epoch)

    def append(self, entries: Sequence[Entry], fence: Fence, deadline: Deadline) -> list[int]:
        """Append the entries in one transaction; see `Log.append`."""
        with self._wire.held(deadline):
            while True:
                try:
                    identity = self._for(fence, deadline)
                    settled = self._settled(entries, deadline)
                    return self._appended(entries, identity, deadline) if settled is None else settled
                except IDENTITY_LOST as error:
                    self._again(error, deadline)

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], fence: Fence, deadline: Deadline) -> None:
        """Commit a group's offsets in one transaction; see `Log.commit`."""
        with self._wire.held(deadline):
            while True:
                try:
                    identity = self._for(fence, deadline)
                    # Until the commit is known to be done: committing again what was committed is harmless, so nothing
                    # is kept to be settled, but the transaction may be open.
                    self._identity = None
                    with self._aborting(identity):
                        self._add_group(group, identity, deadline)
                        self._add_offsets(group, offsets, identity, deadline)
                    self._end(identity, deadline)
                except IDENTITY_LOST as error:
                    self._again(error, deadline)
                else:
                    self._identity = identity
                    return

    def close(self, deadline: Deadline) -> None:
        """Wake the thread that waits, and drop the connections."""
        self._wire.close(deadline)

    def _again(self, error: BaseException, deadline: Deadline) -> None:
        self._identity = None
        if deadline.remaining() <= 0:
            raise LogUnavailableError(
                f"the transactions of {self._name} end before they are committed ({type(error).__name__}): try again; "
                f"if it stays so, raise kafka_transaction_ms above what an append takes"
            ) from error
        self._wire.pause(deadline)

    def _for(self, fence: Fence, deadline: Deadline) -> Identity:
        """Return the identity to write with under `fence`, which may have been claimed by another process of ours."""
        if self._identity is not None and self._epoch == fence.epoch:
            return self._identity
        self._require(fence, deadline)
        if self._epoch != fence.epoch:
            self._unsettled = None
        identity = self._taken(deadline)
        # Whoever claimed the name in between has lost its transactional id to us just now; its claim tells us so, and
        # it takes the id back with its next transaction.
        self._require(fence, deadline)
        self._identity, self._epoch = identity, fence.epoch
        return identity

    def _require(self, fence: Fence, deadline: Deadline) -> None:
        try:
            self._claims.require(fence, self._wire, deadline)
        except FencedError:
            # Another process owns this share of the work now: its connections are not needed here.
            self._wire.drop()
            raise

    def _taken(self, deadline: Deadline) -> Identity:
        """Take the transactional id: what it had open is aborted, what it was committing is committed."""
        answer = self._ask(
            lambda: InitProducerIdRequest(
                transactional_id=self._id,
                transaction_timeout_ms=self._transaction_ms,
                producer_id=-1,
                producer_epoch=-1,
                max_version=4,
            ),
            deadline,
        )
        return Identity(answer.producer_id, answer.producer_epoch, self._id)

    def _settled(self, entries: Sequence[Entry], deadline: Deadline) -> list[int] | None:
        """Return the offsets of `entries` if an append that failed has written them after all."""
        unsettled = self._unsettled
        if unsettled is None:
            return None
        written = list(unsettled.entries) == list(entries) and self._committed(unsettled, deadline)
        self._unsettled = None
        return list(unsettled.offsets) if written else None

    def _committed(self, unsettled: _Unsettled, deadline: Deadline) -> bool:
        """Return whether readers get what an ended transaction wrote: all of it or nothing, so one record tells."""
        entry, offset = unsettled.entries[0], unsettled.offsets[0]
        while True:
            fetched = fetch(self._wire, TopicPartition(entry.topic, entry.partition), offset, deadline)
            if fetched.stable > offset or fetched.out_of_range:
                break
            # Somebody else's open transaction in that partition hides ours as well.
            if deadline.remaining() <= 0:
                raise self._wire.unavailable(deadline)
            self._wire.pause(deadline)
        return any(record.offset == offset for batch in fetched.batches[:1] for record in batch.records(offset))

    def _appended(self, entries: Sequence[Entry], identity: Identity, deadline: Deadline) -> list[int]:
        sources = dict.fromkeys(TopicPartition(entry.topic, entry.partition) for entry in entries)
        self._identity = None
        with self._aborting(identity):
            self._add_partitions(list(sources), identity, deadline)
            offsets = produce(self._wire, identity, entries, self._clock.now_ms(), deadline)
        self._unsettled = _Unsettled(tuple(entries), tuple(offsets))
        self._end(identity, deadline)
        self._unsettled = None
        self._identity = identity
        return offsets

    @contextmanager
    def _aborting(self, identity: Identity) -> Iterator[None]:
        """Abort the transaction where it cannot be committed, so that readers do not have to wait for it to expire."""
        try:
            yield
        except LogUnavailableError:
            raise
        except LogError:
            with suppress(LogError, *IDENTITY_LOST):
                self._ask(lambda: self._end_request(identity, committed=False), Deadline(ABORT_SECONDS_MAX))
            raise

    def _end_request(self, identity: Identity, *, committed: bool) -> EndTxnRequest:
        return EndTxnRequest(
            transactional_id=self._id,
            producer_id=identity.producer_id,
            producer_epoch=identity.epoch,
            committed=committed,
            max_version=3,
        )

    def _end(self, identity: Identity, deadline: Deadline) -> None:
        self._ask(lambda: self._end_request(identity, committed=True), deadline)
        # The answer comes when the decision is durable; the markers that let readers on follow. Asking again tells when
        # they are written, and the next transaction would have to wait for that anyhow.
        try:
            self._ask(lambda: self._end_request(identity, committed=True), deadline)
        except LogUnavailableError:
            if self._wire.closed:
                raise

    def _add_partitions(self, sources: Sequence[TopicPartition], identity: Identity, deadline: Deadline) -> None:
        topic = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic
        by_topic: dict[str, list[int]] = {}
        for source in sources:
            by_topic.setdefault(source.topic, []).append(source.partition)
        self._ask(
            lambda: AddPartitionsToTxnRequest(
                v3_and_below_transactional_id=self._id,
                v3_and_below_producer_id=identity.producer_id,
                v3_and_below_producer_epoch=identity.epoch,
                v3_and_below_topics=[topic(name=name, partitions=mine) for name, mine in by_topic.items()],
                max_version=3,
            ),
            deadline,
            lambda answer: [
                one.partition_error_code
                for topic in answer.results_by_topic_v3_and_below
                for one in topic.results_by_partition
            ],
        )

    def _add_group(self, group: str, identity: Identity, deadline: Deadline) -> None:
        self._ask(
            lambda: AddOffsetsToTxnRequest(
                transactional_id=self._id,
                producer_id=identity.producer_id,
                producer_epoch=identity.epoch,
                group_id=group,
                max_version=3,
            ),
            deadline,
        )

    def _add_offsets(
        self, group: str, offsets: Mapping[TopicPartition, int], identity: Identity, deadline: Deadline
    ) -> None:
        topic = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic
        by_topic: dict[str, list[TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic.TxnOffsetCommitRequestPartition]]
        by_topic = {}
        for source, offset in offsets.items():
            by_topic.setdefault(source.topic, []).append(
                topic.TxnOffsetCommitRequestPartition(
                    partition_index=source.partition,
                    committed_offset=offset,
                    committed_leader_epoch=-1,
                    committed_metadata="",
                )
            )
        self._ask(
            lambda: TxnOffsetCommitRequest(
                transactional_id=self._id,
                group_id=group,
                producer_id=identity.producer_id,
                producer_epoch=identity.epoch,
                generation_id=-1,
                member_id="",
                group_instance_id=None,
                topics=[topic(name=name, partitions=mine) for name, mine in by_topic.items()],
                max_version=3,
            ),
            deadline,
            lambda answer: [one.error_code for topic in answer.topics for one in topic.partitions],
            lambda until: self._wire.coordinator(CoordinatorType.GROUP, group, until),
        )

    def _ask(
        self,
        request: Callable[[], object],
        deadline: Deadline,
        errors: Callable[..., list[int]] = lambda answer: [answer.error_code],
        where: Callable[[Deadline], Node] | None = None,
    ) -> Any:
        """Ask the coordinator and return its answer.

        Raises:
            KafkaError: one of `IDENTITY_LOST`.
            LogUnavailableError: no answer in time.
            LogError: Kafka refuses.
        """
        answer = self._wire.ask(
            where or (lambda until: self._wire.coordinator(CoordinatorType.TRANSACTION, self._id, until)),
            request,
            errors,
            deadline,
        )
        for error in (for_code(code) for code in errors(answer) if code):
            if issubclass(error, IDENTITY_LOST):
                raise error
            raise self._wire.refused(error())
        return answer
