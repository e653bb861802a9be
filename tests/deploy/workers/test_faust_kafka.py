"""Detection and signals as Faust agents on a real broker: what comes out is what the embedded stages say."""

from collections.abc import Iterator

import pytest

from deploy.kafka.broker import LocalKafka
from ingest.clock import WallClock
from ingest.log.interface import TopicPartition
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics
from support.cohorts import FleetPlan, rollout, simulate
from support.kafka import kafka_settings, lane_on
from support.keyed import (
    BLIND_SECONDS,
    Embedded,
    KeyedWorker,
    declare,
    entries_of,
    events_of,
    latest_of,
    values_of,
    wait_for,
)

JULY_19 = FleetPlan(seed=19, devices=85_000, ratio=1e6, background=2e-8, seconds=60)


@pytest.fixture
def topics(kafka: LocalKafka) -> Iterator[Topics]:
    """A lane with two keyed partitions."""
    with lane_on(kafka, device_partitions=2, keyed_partitions=2, prefix="agents") as topics:
        yield topics


@pytest.fixture
def settings(kafka: LocalKafka, topics: Topics) -> Settings:
    return kafka_settings(kafka, topics, blind_seconds=BLIND_SECONDS, snapshot_seconds=1, kafka_session_ms=6000)


@pytest.fixture
def log(settings: Settings, topics: Topics) -> Iterator[KafkaLog]:
    log = kafka_log(settings, topics, "test")
    yield log
    log.close()


def kafka_log(settings: Settings, topics: Topics, client: str) -> KafkaLog:
    return KafkaLog(
        connection_of(settings), topic_specs(topics), WallClock(), Metrics(), lane=topics.lane, client=client
    )


def verdicts_of(log: KafkaLog, topics: Topics, number: int) -> list[bytes]:
    return values_of(log, TopicPartition(topics.name("verdicts"), number))


@pytest.mark.slow
def test_steps_become_the_verdicts_and_the_signed_events_of_the_embedded_stages(
    settings: Settings, topics: Topics, log: KafkaLog
) -> None:
    steps = list(simulate(JULY_19))
    embedded = Embedded(topics)
    embedded.run(rollout(), steps=steps)
    expected = events_of(embedded.log, topics)
    assert [event.switch.decision for event in expected][-1] == "kill"
    declare(log, topics, rollout())
    entries = entries_of(topics, steps)
    log.append(entries[:200])
    with KeyedWorker(settings, topics, log, ["detection", "signals"]):
        wait_for(lambda: any(verdicts_of(log, topics, number) for number in (0, 1)), "a first verdict")
        for begin in range(200, len(entries), 20):
            log.append(entries[begin : begin + 20])
        wait_for(lambda: len(events_of(log, topics)) >= len(expected), "all events")
        last = [latest_of(embedded.log, TopicPartition(topics.name("verdicts"), number)) for number in (0, 1)]
        wait_for(
            lambda: [latest_of(log, TopicPartition(topics.name("verdicts"), number)) for number in (0, 1)] == last,
            "the last verdict",
        )
    for number in (0, 1):
        assert verdicts_of(log, topics, number) == values_of(
            embedded.log, TopicPartition(topics.name("verdicts"), number)
        )
    assert [event.switch for event in events_of(log, topics)] == [event.switch for event in expected]
    assert not values_of(log, TopicPartition(topics.name("deadletter"), 0))
