"""Deals device partitions to the members of grouping's consumer group.

Both topics of a partition go to one member, since one Owner reads both. A member keeps what it has as far as balance
allows: a share that stays is resumed from memory, a share that moves is loaded anew. The leader of the group deals; the
members tell it what they have in their subscription.

Invariants: every partition is dealt, once; no member has two more than another; no partition leaves a member that is
still there unless balance asks for it; the same members with the same claims are dealt the same.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

VERSION = 0

logger = logging.getLogger(__name__)


class Held(NamedTuple):
    """What a member says it has.

    Attributes:
        dealt: counts the deals; the higher one is right where two members claim a partition (one was away meanwhile).
        partitions: their numbers.
    """

    dealt: int
    partitions: Sequence[int]


class Cluster(Protocol):
    """What is asked of the cluster's metadata."""

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Return the numbers of a topic's partitions, or None if it does not exist."""
        ...


NOTHING = Held(0, ())


def deal(partitions: Iterable[int], members: Mapping[str, Held]) -> dict[str, list[int]]:
    """Return the partitions of each member, in order."""
    everything = sorted(set(partitions))
    if not members:
        return {}
    kept = _kept(everything, members)
    # Who has most gets the larger portions, so that the fewest have to be taken away.
    order = sorted(kept, key=lambda member: (-len(kept[member]), member))
    least, larger = divmod(len(everything), len(members))
    portions = {member: least + (place < larger) for place, member in enumerate(order)}
    dealt = {member: kept[member][: portions[member]] for member in order}
    held = {number for numbers in dealt.values() for number in numbers}
    pool = iter([number for number in everything if number not in held])
    for member in sorted(dealt):
        while len(dealt[member]) < portions[member]:
            dealt[member].append(next(pool))
        dealt[member].sort()
    return dealt


def _kept(everything: Sequence[int], members: Mapping[str, Held]) -> dict[str, list[int]]:
    claims: dict[int, str] = {}
    # The newest claim counts; among equals, the first name.
    for member in sorted(members, key=lambda name: (-members[name].dealt, name)):
        for number in members[member].partitions:
            claims.setdefault(number, member)
    kept: dict[str, list[int]] = {member: [] for member in members}
    for number in everything:
        if number in claims:
            kept[claims[number]].append(number)
    return kept


class CoPartitionAssignor:
    """`deal` as aiokafka asks for it; one object for each consumer, since it remembers what the consumer has.

    aiokafka calls its assignors through whatever object it was given: an instance serves where it would take a class.
    """

    name = "cordon-copartition"

    def __init__(self) -> None:
        """Begin with nothing."""
        self._held = NOTHING

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Return this member's subscription, with what it has."""
        return ConsumerProtocolMemberMetadata(VERSION, sorted(topics), msgspec.msgpack.encode(self._held))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what was dealt."""
        self._held = Held(_counter(assignment.user_data), sorted({tp.partition for tp in assignment.partitions()}))

    def forget(self) -> None:
        """Have nothing: the consumer begins anew and its shares are gone."""
        self._held = NOTHING

    def assign(
        self, cluster: Cluster, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Deal the partitions of all subscribed topics; called at the group's leader."""
        topics = sorted({topic for member in members.values() for topic in member.subscription})
        existing = {topic: cluster.partitions_for_topic(topic) or set() for topic in topics}
        for topic, numbers in existing.items():
            if not numbers:
                logger.error("topic %s does not exist: run `cordon topics apply`", topic)
        held = {member: _held(metadata.user_data) for member, metadata in members.items()}
        counter = 1 + max((one.dealt for one in held.values()), default=0)
        dealt = deal(set().union(*existing.values()), held)
        return {
            member: ConsumerProtocolMemberAssignment(
                VERSION,
                [(topic, [number for number in numbers if number in existing[topic]]) for topic in topics],
                msgspec.msgpack.encode(counter),
            )
            for member, numbers in dealt.items()
        }


def _held(user_data: bytes | None) -> Held:
    try:
        return msgspec.msgpack.decode(user_data or b"", type=Held)
    except msgspec.DecodeError:
        # Of another version, which tells otherwise what it has: it is dealt to like a newcomer.
        return NOTHING


def _counter(user_data: bytes | None) -> int:
    try:
        return msgspec.msgpack.decode(user_data or b"", type=int)
    except msgspec.DecodeError:
        return 0
