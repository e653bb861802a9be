"""Groups whose topics a broker does not know yet: dealt nothing at first, and everything soon after.

A broker that has just been started answers so for a moment. Clients ask again by themselves, after five minutes.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError

from deploy.kafka.broker import LocalKafka
from deploy.workers.agents import Agents
from ingest.gateway import intake_consumer as intake_consumer_module
from ingest.gateway.intake import IntakeRecord
from ingest.gateway.intake_consumer import IntakeConsumer, intake_consumer
from ingest.log.feed import Feed
from ingest.log.interface import TopicPartition
from ingest.log.kafka.connection import connection_of
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from support.kafka import create_topics, delete_topics, kafka_settings, unique_lane

SECONDS = 25.0


@pytest.fixture
def topics(kafka: LocalKafka) -> Iterator[Topics]:
    """A lane without topics."""
    topics = Topics(unique_lane("late"), device_partitions=3, keyed_partitions=2)
    yield topics
    delete_topics(kafka, topic_specs(topics))


class Noted:
    """Shares that only note what was dealt."""

    unfed = False

    def __init__(self) -> None:
        self.deals: list[set[TopicPartition]] = []

    def begin(self, on_failure: Callable[[BaseException], None]) -> None: ...

    def assign(self, sources: Collection[TopicPartition]) -> None:
        self.deals.append(set(sources))

    def tend(self) -> None: ...

    def feed_of(self, source: TopicPartition) -> Feed | None:
        return None

    def flushed(self, source: TopicPartition) -> int:
        return 0

    async def revoke(self, timeout_seconds: float) -> None: ...

    def standings(self) -> list[Any]:
        return []


@pytest.mark.timeout(90)
def test_agents_that_were_dealt_nothing_are_dealt_to_when_the_topics_are_known(
    kafka: LocalKafka, topics: Topics
) -> None:
    shares = Noted()
    names = [topics.name("verdicts"), topics.name("commands")]
    connection = connection_of(kafka_settings(kafka, topics))

    async def play() -> None:
        agents = Agents(
            connection, f"cordon-{topics.lane}-signals", "signals-1", names, shares, Metrics(), stage_word="signals"
        )
        await agents.start()
        try:
            await reached(lambda: bool(shares.deals))
            await asyncio.to_thread(create_topics, kafka, topic_specs(topics))
            await reached(lambda: bool(shares.deals[-1]))
        finally:
            await agents.stop()

    asyncio.run(play())
    assert shares.deals[0] == set(), "the topics were known at once: nothing was tested"
    assert shares.deals[-1] == {TopicPartition(name, number) for name in names for number in range(2)}


class Taken:
    """Takes the intake's records."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []

    async def take(self, source: TopicPartition, records: Sequence[IntakeRecord]) -> None:
        self.values += [one.record.value for one in records]


@pytest.mark.timeout(90)
def test_an_intake_that_was_dealt_nothing_is_dealt_to_when_the_topic_is_known(
    kafka: LocalKafka, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As while it has something under way: a poll ends long before a join does.
    monkeypatch.setattr(intake_consumer_module, "_POLL_MS", 20)
    connection, taken = connection_of(kafka_settings(kafka, topics)), Taken()

    async def play() -> None:
        connect = partial(intake_consumer, connection, topics, "gateway-1")
        intake = IntakeConsumer(taken, topics, connect, asyncio.get_running_loop())
        intake.start()
        try:
            await reached(lambda: dealt(kafka, f"cordon-{topics.lane}-intake") == [0])
            await asyncio.to_thread(create_topics, kafka, topic_specs(topics))
            await asyncio.to_thread(produce, kafka, topics.name("intake"))
            await reached(lambda: len(taken.values) >= 3)
        finally:
            await asyncio.to_thread(intake.stop)

    asyncio.run(play())
    assert sorted(taken.values, key=repr) == [b"0", b"1", b"2"]


async def reached(told: Callable[[], bool]) -> None:
    """Return once it is so; fail after a while."""
    until = time.monotonic() + SECONDS
    while not await asyncio.to_thread(told):
        assert time.monotonic() < until
        await asyncio.sleep(0.1)


def dealt(kafka: LocalKafka, group: str) -> list[int]:
    """Return how many topics each member of a group that stands was dealt partitions of."""
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap.split(","))
    try:
        found = admin.describe_groups([group])[group]
    except KafkaError:
        return []
    finally:
        admin.close()
    if found["group_state"] != "Stable":
        return []
    return [len(one["member_assignment"]["assigned_partitions"]) for one in found["members"]]


def produce(kafka: LocalKafka, topic: str) -> None:
    """Write a record to each partition."""
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap.split(","), acks="all")
    for number in range(3):
        producer.send(topic, str(number).encode(), partition=number).get(10)
    producer.close()
