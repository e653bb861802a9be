"""What tests against a real Kafka share: the broker's fixtures are in `tests/conftest.py`, the helpers here.

One broker serves a whole test session. Tests keep apart by lanes: each takes one of its own, whose topics are deleted
when it is done. A test that takes the broker away (kill, pause) asks for `own_kafka` instead.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kafka import KafkaAdminClient

from deploy.kafka.archive import make_archive
from deploy.kafka.broker import LocalKafkaCluster
from deploy.kafka.distribution import KafkaMissingError, classpath
from ingest.log.kafka.topics import apply, wanted
from ingest.log.specs import TopicSpec, topic_specs
from ingest.settings import Settings
from ingest.topics import Topics


def require_kafka() -> None:
    """Skip the test where a broker can't be run, naming what is missing; fail it where CI=true."""
    try:
        classpath()
        make_archive()
    except KafkaMissingError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, and {error}", pytrace=False)
        pytest.skip(str(error))


def unique_lane(prefix: str = "t") -> str:
    """Return a lane name that no other test has."""
    return f"{prefix[:20]}-{uuid.uuid4().hex[:10]}"


def kafka_settings(kafka: LocalKafkaCluster, topics: Topics, **more: object) -> Settings:
    """Return settings of a process that runs in the lane of `topics` on this broker; `more` wins."""
    values: dict[str, object] = {
        "kafka_bootstrap": kafka.bootstrap,
        "kafka_replication": min(3, len(kafka.nodes)),
        "kafka_min_isr": max(1, min(3, len(kafka.nodes)) - 1),
        "lane": topics.lane,
        "device_partitions": topics.device_partitions,
        "keyed_partitions": topics.keyed_partitions,
    }
    return Settings(**{**values, **more})  # type: ignore[arg-type]  # checked where the settings are used


@contextmanager
def lane_on(
    kafka: LocalKafkaCluster, device_partitions: int = 2, keyed_partitions: int = 1, prefix: str = "t"
) -> Iterator[Topics]:
    """Yield a lane whose topics exist on the broker while the block lasts."""
    topics = Topics(unique_lane(prefix), device_partitions, keyed_partitions)
    specs = topic_specs(topics)
    create_topics(kafka, specs)
    try:
        yield topics
    finally:
        delete_topics(kafka, specs)


def create_topics(kafka: LocalKafkaCluster, specs: tuple[TopicSpec, ...]) -> None:
    """Create the topics of `specs` as `cordon topics apply` does, replicated as widely as the cluster allows."""
    replication = min(3, len(kafka.nodes))
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap.split(","))
    try:
        apply(admin, wanted(specs, replication=replication, min_isr=max(1, replication - 1)))
    finally:
        admin.close()


def delete_topics(kafka: LocalKafkaCluster, specs: tuple[TopicSpec, ...]) -> None:
    """Delete those of the topics that exist."""
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap.split(","))
    try:
        present = set(admin.list_topics()).intersection(spec.name for spec in specs)
        if present:
            admin.delete_topics(sorted(present))
    finally:
        admin.close()
