"""The topics that a lane needs on Kafka: what each should be like, and what differs.

Between the declarations (`ingest.topics`, `ingest.log.specs`) and `topics`, which asks the brokers. Pure. The
invariants: a partition count is never changed, for devices and rollouts are found by it; what exactness rests on is
set on the topic, whatever the brokers' defaults.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ingest.log.interface import LogError
from ingest.log.specs import HOUR_MS, TopicSpec

# A record's value is 1 MiB at most where it can be split, and a single report is less; compressed it is far smaller.
MESSAGE_BYTES_MAX = 2 << 20
_MINUTE_MS = 60_000
# Only closed segments are compacted: short ones keep the changelog that a worker reads back near the state's own size.
_COMPACTED_SEGMENT_BYTES = 32 << 20
_COMPACTED_SEGMENT_MS = 10 * _MINUTE_MS
_SEGMENT_BYTES_MIN = 2 * MESSAGE_BYTES_MAX
_SEGMENT_BYTES_MAX = 256 << 20


class TopicsError(LogError):
    """The topics can't be made as they should be; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """One topic as it should be.

    Attributes:
        configs: topic configurations, all as text; those not named here are left to the brokers.
    """

    name: str
    partitions: int
    replication: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ExistingTopic:
    """One topic as the brokers describe it; `replication` is that of its least replicated partition."""

    partitions: int
    replication: int
    configs: Mapping[str, str]


class Kind(enum.StrEnum):
    """What is to be done about a difference."""

    CREATE = "create"
    ALTER = "alter"
    REFUSED = "refused"  # by us: a person has to decide


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between a topic as it should be and as it is.

    Attributes:
        text: what differs, for people.
        configs: the configurations to set; those of `ALTER` only.
    """

    kind: Kind
    topic: str
    text: str
    configs: Mapping[str, str] = field(default_factory=dict)


def wanted(specs: Iterable[TopicSpec], *, replication: int, min_isr: int) -> list[WantedTopic]:
    """Return each topic of `specs` as it should be on Kafka."""
    return [
        WantedTopic(
            spec.name,
            spec.partitions,
            replication,
            {
                "min.insync.replicas": str(min_isr),
                # A replica that missed acknowledged records must not become the leader: they would be gone.
                "unclean.leader.election.enable": "false",
                # Kafka deletes by record time; the devices' clocks are no measure of it.
                "message.timestamp.type": "LogAppendTime",
                "max.message.bytes": str(MESSAGE_BYTES_MAX),
                # Our producers compress (zstd); the broker need not do it again.
                "compression.type": "producer",
                **_upkeep(spec),
            },
        )
        for spec in specs
    ]


def _upkeep(spec: TopicSpec) -> dict[str, str]:
    if spec.compacted:
        return {
            "cleanup.policy": "compact",
            "segment.bytes": str(_COMPACTED_SEGMENT_BYTES),
            "segment.ms": str(_COMPACTED_SEGMENT_MS),
            "min.cleanable.dirty.ratio": "0.5",
            "min.compaction.lag.ms": "0",
            # However little is written, replaced values go: the ratio alone would never be reached.
            "max.compaction.lag.ms": str(HOUR_MS),
            "delete.retention.ms": str(24 * HOUR_MS),
        }
    retention_bytes = spec.retention_bytes_max
    segment_ms = 24 * HOUR_MS
    if spec.retention_ms is not None:
        segment_ms = min(max(spec.retention_ms // 12, 10 * _MINUTE_MS), segment_ms)
    segment_bytes = _SEGMENT_BYTES_MAX
    if retention_bytes is not None:
        segment_bytes = min(max(retention_bytes // 8, _SEGMENT_BYTES_MIN), segment_bytes)
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(-1 if spec.retention_ms is None else spec.retention_ms),
        "retention.bytes": str(-1 if retention_bytes is None else retention_bytes),
        # Records go by whole segments: a twelfth of the time and an eighth of the bytes is how much may stay too long.
        "segment.ms": str(segment_ms),
        "segment.bytes": str(segment_bytes),
    }


def plan(topics: Sequence[WantedTopic], existing: Mapping[str, ExistingTopic], brokers: int) -> list[Change]:
    """Return what differs, in the order of `topics`; empty when nothing does.

    Args:
        topics: as they should be.
        existing: as they are, by name; topics that don't exist are missing.
        brokers: how many brokers live now.
    """
    changes: list[Change] = []
    for topic in topics:
        there = existing.get(topic.name)
        if there is None:
            changes.append(_creation(topic, brokers))
            continue
        changes.extend(_refusals(topic, there))
        differing = {name: value for name, value in topic.configs.items() if there.configs.get(name) != value}
        if differing:
            text = ", ".join(
                f"{name} {there.configs.get(name, 'unset')} -> {value}" for name, value in differing.items()
            )
            changes.append(Change(Kind.ALTER, topic.name, text, differing))
    return changes


def _creation(topic: WantedTopic, brokers: int) -> Change:
    if topic.replication > brokers:
        return Change(
            Kind.REFUSED,
            topic.name,
            f"{topic.replication} replicas need as many brokers, and {brokers} answered: start more brokers, or set "
            f"kafka_replication (and kafka_min_isr) to what there is",
        )
    return Change(
        Kind.CREATE,
        topic.name,
        f"{topic.partitions} partitions, {topic.replication} replicas, {topic.configs['cleanup.policy']}",
    )


def _refusals(topic: WantedTopic, there: ExistingTopic) -> list[Change]:
    refusals = []
    if there.partitions != topic.partitions:
        refusals.append(
            Change(
                Kind.REFUSED,
                topic.name,
                f"has {there.partitions} partitions and should have {topic.partitions}: a partition count is fixed for "
                f"the installation's life, because devices and rollouts are found by it. Set device_partitions and "
                f"keyed_partitions to what is there, or run another lane and reprocess into it",
            )
        )
    if there.replication != topic.replication:
        refusals.append(
            Change(
                Kind.REFUSED,
                topic.name,
                f"has {there.replication} replicas and should have {topic.replication}: set kafka_replication to "
                f"{there.replication}, or move its replicas with kafka-reassign-partitions first",
            )
        )
    return refusals
