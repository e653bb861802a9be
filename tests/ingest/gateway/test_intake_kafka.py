"""The intake consumer against a real broker: what foreign producers write is taken, committed, and never lost."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from ingest.clock import WallClock
from ingest.events import encoder
from ingest.gateway.intake import IntakeStage
from ingest.gateway.intake_consumer import IntakeConsumer, intake_consumer
from ingest.log.interface import TopicPartition
from ingest.log.kafka.connection import connection_of
from ingest.topics import Topics
from support.gateway_rig import Rig, run
from support.kafka import kafka_settings, lane_on
from support.spool_rig import AwayLog, eventually

if TYPE_CHECKING:
    from deploy.kafka.broker import LocalKafka

PARTITIONS = 4


@pytest.fixture
def lane(kafka: "LocalKafka") -> Iterator[Topics]:
    with lane_on(kafka, device_partitions=PARTITIONS) as topics:
        yield topics


@contextmanager
def producing(kafka: "LocalKafka") -> Iterator[Any]:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap.split(","), acks="all")
    try:
        yield producer
    finally:
        producer.close()


def report(number: int) -> dict[str, Any]:
    now_ms = WallClock().now_ms()
    return {
        "kind": "check_in" if number % 3 else "bsod",
        "device": f"host-{number}",
        "seq": number,
        "at_ms": now_ms,
        "boot_id": "b",
        "boot_at_ms": now_ms - 1000,
        "os_build": "22631.3880",
        "form_factor": "laptop",
    }


def rig_in(folder: Path, topics: Topics, **settings: Any) -> Rig:
    log = AwayLog(Topics(topics.lane, PARTITIONS), WallClock())
    return Rig(folder, clock=WallClock(), log=log, lane=topics.lane, tick_ms=100, linger_ms=5, **settings)


def consumer_of(rig: Rig, kafka: "LocalKafka", topics: Topics, **settings: Any) -> IntakeConsumer:
    connection = connection_of(kafka_settings(kafka, topics, **settings))
    stage = IntakeStage(rig.gateway, rig.log)
    return IntakeConsumer(
        stage, topics, lambda: intake_consumer(connection, topics, "gateway-1"), asyncio.get_running_loop()
    )


def committed(kafka: "LocalKafka", topics: Topics) -> dict[int, int]:
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap.split(","))
    try:
        group = f"cordon-{topics.lane}-intake"
        found = admin.list_group_offsets([group])[group]
    finally:
        admin.close()
    return {source.partition: offset.offset for source, offset in found.items() if offset.offset >= 0}


def seen(rig: Rig) -> set[int]:
    return {one.seq for word in ("activity", "crashes") for one in rig.reports(word)}


def test_records_of_foreign_producers_are_taken_and_committed(
    kafka: "LocalKafka", lane: Topics, tmp_path: Path
) -> None:
    rig = rig_in(tmp_path, lane)
    header = [("authorization", rig.token()["authorization"].encode())]
    topic = lane.name("intake")

    def produce() -> None:
        with producing(kafka) as producer:
            for number in range(0, 400, 4):
                body = encoder.encode([report(number + i) for i in range(4)])
                producer.send(topic, body, key=f"k{number}".encode(), headers=header)
            producer.send(topic, json.dumps(report(1000)).encode(), headers=header, partition=0)
            producer.send(topic, b"nonsense", headers=header, partition=1)
            producer.send(topic, encoder.encode(report(1)), partition=2)

    async def play() -> None:
        await rig.gateway.start()
        consumer = consumer_of(rig, kafka, lane)
        consumer.start()
        await asyncio.to_thread(produce)
        await asyncio.to_thread(eventually, lambda: len(seen(rig)) == 401, 60)
        await asyncio.to_thread(eventually, lambda: sum(committed(kafka, lane).values()) == 103, 30)
        await asyncio.to_thread(consumer.stop)
        await rig.gateway.drain()

    run_long(play())
    assert seen(rig) == {*range(400), 1000}
    values = rig.log.read(_source(rig), 0)
    assert len(values) == 2
    assert rig.metrics.value("intake_records_total", result="accepted") == 101


def test_what_was_not_accepted_is_not_committed_and_read_again_by_the_next_one(
    kafka: "LocalKafka", lane: Topics, tmp_path: Path
) -> None:
    rig = rig_in(tmp_path, lane)
    assert isinstance(rig.log, AwayLog)
    header = [("authorization", rig.token()["authorization"].encode())]
    log = rig.log

    def produce(first: int) -> None:
        with producing(kafka) as producer:
            for number in range(first, first + 50):
                producer.send(lane.name("intake"), encoder.encode(report(number)), headers=header)

    async def play() -> None:
        await rig.gateway.start()
        first = consumer_of(rig, kafka, lane)
        first.start()
        await asyncio.to_thread(produce, 0)
        await asyncio.to_thread(eventually, lambda: sum(committed(kafka, lane).values()) == 50, 60)
        log.unavailable = True
        await asyncio.to_thread(produce, 50)
        await asyncio.sleep(2)
        await asyncio.to_thread(first.stop)
        log.unavailable = False
        assert sum(committed(kafka, lane).values()) == 50
        assert seen(rig) == set(range(50))
        second = consumer_of(rig, kafka, lane)
        second.start()
        await asyncio.to_thread(eventually, lambda: sum(committed(kafka, lane).values()) == 100, 60)
        await asyncio.to_thread(second.stop)
        await rig.gateway.drain()

    run_long(play())
    assert seen(rig) == set(range(100))


def test_two_gateways_share_the_topic_and_one_takes_over(kafka: "LocalKafka", lane: Topics, tmp_path: Path) -> None:
    rigs = [rig_in(tmp_path, lane) for _ in (1, 2)]
    headers = [("authorization", rigs[0].token()["authorization"].encode())]
    rigs[1].tokens.reload_if_changed()

    def produce(first: int) -> None:
        with producing(kafka) as producer:
            for number in range(first, first + 40):
                producer.send(
                    lane.name("intake"), encoder.encode(report(number)), headers=headers, partition=number % PARTITIONS
                )

    async def play() -> None:
        for rig in rigs:
            await rig.gateway.start()
        consumers = [consumer_of(rig, kafka, lane, kafka_session_ms=6000) for rig in rigs]
        for consumer in consumers:
            consumer.start()
        first = 0
        for _ in range(60):
            await asyncio.to_thread(produce, first)
            first += 40
            await asyncio.sleep(0.3)
            if all(seen(rig) for rig in rigs):
                break
        assert all(seen(rig) for rig in rigs), "both take part"
        await asyncio.to_thread(consumers[0].stop)
        await asyncio.to_thread(produce, first)
        first += 40
        await asyncio.to_thread(eventually, lambda: seen(rigs[0]) | seen(rigs[1]) == set(range(first)), 60)
        await asyncio.to_thread(consumers[1].stop)
        for rig in rigs:
            await rig.gateway.drain()

    run_long(play())


def test_a_broker_that_is_away_is_tried_again_and_stopping_does_not_wait_for_it(tmp_path: Path) -> None:
    topics = Topics("live", PARTITIONS)
    rig = rig_in(tmp_path, topics)
    tries = []

    def connect() -> Any:
        tries.append(1)
        raise ConnectionError("nobody is there, as a test ordered")

    async def play() -> None:
        consumer = IntakeConsumer(IntakeStage(rig.gateway, rig.log), topics, connect, asyncio.get_running_loop())
        consumer.start()
        await asyncio.to_thread(eventually, lambda: len(tries) >= 2)
        await asyncio.wait_for(asyncio.to_thread(consumer.stop), 2)

    run(play())


def run_long(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 110))


def _source(rig: Rig) -> TopicPartition:
    return TopicPartition(rig.topics.name("deadletter"), 0)
