"""What a log is told of its topics: names, partition counts, compaction, retention.

Built once by the composition root from the declarations in `ingest.topics`, and handed to whichever log runs. The
invariant: a topic or partition that is not in the specs does not exist, so a misspelt name is an error and never a new
topic.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ingest.log.interface import LogError, TopicPartition, UnknownTopicError
from ingest.topics import TOPICS, Topics

HOUR_MS = 3_600_000
# One machine's disk is finite and a flood is not: each aged topic keeps at most this much, oldest records go first.
RETENTION_BYTES_MAX = 8 << 30


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as a log sees it.

    Attributes:
        name: the full topic name.
        partitions: how many partitions it has, for the life of the installation.
        compacted: only the latest record of each key is kept; every record needs a key.
        retention_ms: records older than this go; None keeps them for ever.
        retention_bytes_max: stored bytes kept in each partition, the oldest go first; None has no bound.
    """

    name: str
    partitions: int
    compacted: bool = False
    retention_ms: int | None = None
    retention_bytes_max: int | None = None


TopicSpecs = Sequence[TopicSpec]


def topic_specs(topics: Topics, retention_bytes_max: int = RETENTION_BYTES_MAX) -> tuple[TopicSpec, ...]:
    """Return the specs of every declared topic in the lane of `topics`.

    Args:
        topics: lane and partition counts.
        retention_bytes_max: stored bytes kept of each topic that ages, divided among its partitions. Topics that are
            kept for ever, or compacted, have no such bound.
    """
    specs = []
    for topic in TOPICS:
        partitions = topics.partitions(topic)
        aged = topic.retention_hours is not None
        specs.append(
            TopicSpec(
                name=topics.name(topic.word),
                partitions=partitions,
                compacted=topic.compacted,
                retention_ms=topic.retention_hours * HOUR_MS if topic.retention_hours is not None else None,
                retention_bytes_max=retention_bytes_max // partitions if aged else None,
            )
        )
    return tuple(specs)


def by_partition(specs: Iterable[TopicSpec]) -> dict[TopicPartition, TopicSpec]:
    """Return the spec of every partition.

    Raises:
        LogError: a topic is declared twice, has no partition, or is both compacted and aged.
    """
    table: dict[TopicPartition, TopicSpec] = {}
    for spec in specs:
        if spec.partitions < 1:
            raise LogError(f"topic {spec.name} has {spec.partitions} partitions: give it at least one")
        if spec.compacted and (spec.retention_ms is not None or spec.retention_bytes_max is not None):
            raise LogError(f"topic {spec.name} is both compacted and aged: a key's latest record is kept for ever")
        for partition in range(spec.partitions):
            if table.setdefault(TopicPartition(spec.name, partition), spec) is not spec:
                raise LogError(f"topic {spec.name} is declared twice: remove one of the declarations")
    return table


def spec_of(table: Mapping[TopicPartition, TopicSpec], topic: str, partition: int) -> TopicSpec:
    """Return the spec of one partition.

    Raises:
        UnknownTopicError: there is no such topic or partition.
    """
    spec = table.get(TopicPartition(topic, partition))
    if spec is not None:
        return spec
    known = table.get(TopicPartition(topic, 0))
    if known is None:
        raise UnknownTopicError(f"no topic {topic!r} in this log: declare it in ingest/topics.py or fix the name")
    raise UnknownTopicError(f"topic {topic} has no partition {partition}: it has 0 to {known.partitions - 1}")


def require_key(spec: TopicSpec, key: bytes | None) -> None:
    """Refuse a record without a key in a compacted topic.

    Raises:
        LogError: compaction would have no way to tell what the record replaces.
    """
    if spec.compacted and key is None:
        raise LogError(f"topic {spec.name} is compacted: give each record a key")
