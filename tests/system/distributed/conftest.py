"""A Kafka for the system tests: the session's broker, whose lane `live` is theirs alone, one module after the other."""

from collections.abc import Iterator

import pytest

from deploy.kafka.broker import LocalKafka
from ingest.log.specs import topic_specs
from ingest.topics import Topics
from support.kafka import delete_topics


@pytest.fixture(scope="module")
def bootstrap(kafka: LocalKafka) -> Iterator[str]:
    """Return the broker's address, and leave no topic of lane `live` behind."""
    yield kafka.bootstrap
    delete_topics(kafka, topic_specs(Topics()))
