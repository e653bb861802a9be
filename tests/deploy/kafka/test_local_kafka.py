"""A local broker keeps its data over a SIGKILL, and does not outlive the process that started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from deploy.kafka.broker import KafkaStartError, LocalKafka
from ingest.topics import Topics
from support.kafka import kafka_settings, require_kafka

STARTER = """
import sys
from deploy.kafka.broker import LocalKafka
kafka = LocalKafka(directory=__import__("pathlib").Path(sys.argv[1])).start()
print(kafka.nodes[0].pid, flush=True)
sys.stdin.read()
"""


def produce(kafka: LocalKafka, topic: str, value: bytes) -> int:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
    try:
        return int(producer.send(topic, value=value, partition=0).get(20).offset)
    finally:
        producer.close()


def consume(kafka: LocalKafka, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, consumer_timeout_ms=20_000)
    source = TopicPartition(topic, 0)
    try:
        consumer.assign([source])
        consumer.seek_to_beginning(source)
        return [record.value for _, record in zip(range(count), consumer, strict=False)]
    finally:
        consumer.close()


def test_records_survive_sigkill_and_the_port_stays(own_kafka: LocalKafka) -> None:
    from support.kafka import lane_on

    bootstrap = own_kafka.bootstrap
    with lane_on(own_kafka, device_partitions=1) as topics:
        topic = topics.name("crashes")
        assert produce(own_kafka, topic, b"before") == 0
        own_kafka.kill()
        own_kafka.start()
        assert own_kafka.bootstrap == bootstrap
        assert produce(own_kafka, topic, b"after") == 1
        assert consume(own_kafka, topic, 2) == [b"before", b"after"]


def test_a_lane_has_its_topics_and_settings(kafka: LocalKafka, kafka_lane: Topics) -> None:
    assert produce(kafka, kafka_lane.name("crashes"), b"x") == 0
    settings = kafka_settings(kafka, kafka_lane, kafka_timeout_ms=2000)
    assert (settings.lane, settings.kafka_replication, settings.kafka_min_isr) == (kafka_lane.lane, 1, 1)
    assert settings.kafka_timeout_ms == 2000


def test_a_broker_ends_when_its_starter_is_killed(tmp_path: Path, repository: Path) -> None:
    require_kafka()
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)],
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        broker = int(starter.stdout.readline())
        os.kill(broker, 0)
        starter.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{broker}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{broker}").exists()


def test_a_broker_that_can_not_start_says_why(tmp_path: Path) -> None:
    require_kafka()
    with pytest.raises(KafkaStartError, match=r"num\.io\.threads"), LocalKafka(properties={"num.io.threads": "none"}):
        pass
