"""Consumer groups' offsets, as a client without a membership commits and asks them.

Kafka's group is only where an offset is kept; who reads what is decided elsewhere. The invariant: a commit that Kafka
refuses because the group has live members is an error that says so, never a lost commit.
"""

from collections.abc import Mapping
from typing import Any

from kafka.errors import IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError, for_code
from kafka.protocol.consumer import OffsetCommitRequest, OffsetFetchRequest
from kafka.protocol.metadata import CoordinatorType

from ingest.log.interface import LogError, TopicPartition
from ingest.log.kafka.wire import Deadline, Wire

_MEMBERS = (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)


def commit(wire: Wire, group: str, offsets: Mapping[TopicPartition, int], deadline: Deadline) -> None:
    """Commit the next offsets of a group that has no members. The caller holds the wire.

    Raises:
        LogError: the group has live members, or Kafka refuses.
        LogUnavailableError: no answer came in time.
    """
    topic = OffsetCommitRequest.OffsetCommitRequestTopic
    by_topic: dict[str, list[Any]] = {}
    for source, offset in offsets.items():
        by_topic.setdefault(source.topic, []).append(
            topic.OffsetCommitRequestPartition(
                partition_index=source.partition,
                committed_offset=offset,
                committed_leader_epoch=-1,
                committed_metadata="",
            )
        )

    def errors(answer: Any) -> list[int]:
        return [one.error_code for topic in answer.topics for one in topic.partitions]

    answer = wire.ask(
        lambda until: wire.coordinator(CoordinatorType.GROUP, group, until),
        lambda: OffsetCommitRequest(
            max_version=8,
            group_id=group,
            generation_id_or_member_epoch=-1,
            member_id="",
            group_instance_id=None,
            topics=[topic(name=name, partitions=partitions) for name, partitions in by_topic.items()],
        ),
        errors,
        deadline,
    )
    for code in errors(answer):
        if issubclass(for_code(code), _MEMBERS):
            raise LogError(
                f"the group {group} has live members, and Kafka takes its commits from them alone: let a member "
                f"commit, or commit under a fence, or end the members first"
            )
        wire.require(code)


def committed(wire: Wire, group: str, source: TopicPartition, deadline: Deadline) -> int | None:
    """Return a group's committed offset, or None. The caller holds the wire.

    Raises:
        LogUnavailableError: no answer came in time, or a transaction that commits it is still open.
    """
    asked = OffsetFetchRequest.OffsetFetchRequestGroup
    partitions = asked.OffsetFetchRequestTopics(name=source.topic, partition_indexes=[source.partition])

    def errors(answer: Any) -> list[int]:
        found = answer.groups[0]
        return [found.error_code, *(one.error_code for topic in found.topics for one in topic.partitions)]

    answer = wire.ask(
        lambda until: wire.coordinator(CoordinatorType.GROUP, group, until),
        # A commit inside an open transaction may be the newest one: the answer waits until that is known.
        lambda: OffsetFetchRequest(
            groups=[asked(group_id=group, topics=[partitions])], require_stable=True, min_version=8, max_version=8
        ),
        errors,
        deadline,
    )
    for code in errors(answer):
        wire.require(code)
    offset = int(answer.groups[0].topics[0].partitions[0].committed_offset)
    return offset if offset >= 0 else None
