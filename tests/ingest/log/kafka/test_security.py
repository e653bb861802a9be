"""TLS, mutual TLS and SASL against a real broker: every client gets in, and strangers are told why not."""

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as AioTopicPartition
from click.testing import CliRunner, Result
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from deploy.cli.main import main
from deploy.kafka.broker import LocalKafka
from ingest.log.interface import LogUnavailableError
from ingest.log.kafka.admin import admin_client
from ingest.log.kafka.connection import Connection, connection_of
from ingest.settings import Settings, SettingsError
from ingest.topics import TOPICS, Topics
from support.kafka import kafka_settings

Secured = Callable[..., Settings]
# The client tries until its time is up; long enough for one try on a busy machine.
REFUSED_MS = 2000

WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "tls": ("TLS", {"kafka_security": "tls", "kafka_ca_file": "ca.pem"}),
    "mutual tls": (
        "MTLS",
        {
            "kafka_security": "tls",
            "kafka_ca_file": "ca.pem",
            "kafka_cert_file": "client.pem",
            "kafka_key_file": "client.key",
        },
    ),
    **{
        f"{security} {mechanism}": (
            listener,
            {
                "kafka_security": security,
                "kafka_sasl_mechanism": mechanism,
                "kafka_username": "cordon",
                "kafka_password_file": "password",
                **authority,
            },
        )
        for security, listener, authority in (
            ("sasl_plaintext", "SASL", {}),
            ("sasl_tls", "SASLTLS", {"kafka_ca_file": "ca.pem"}),
        )
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN")
    },
}


@pytest.fixture
def secured(kafka: LocalKafka, kafka_lane: Topics, tmp_path: Path) -> Secured:
    """Return a function that makes the settings of one way in; file names are those of the broker's certificates."""
    assert kafka.security is not None
    folder = kafka.security.directory
    (tmp_path / "password").write_text(kafka.security.users["cordon"] + "\n")
    (tmp_path / "wrong-password").write_text("guessed")

    def settings(way: str, *, timeout_ms: int = 10_000, **other: str) -> Settings:
        listener, values = WAYS[way]
        values = {**values, **other}
        for name in values:
            if name.endswith("_file") and values[name]:
                values[name] = str((tmp_path if "password" in name else folder) / values[name])
        return kafka_settings(
            kafka, kafka_lane, kafka_bootstrap=kafka.bootstrap_of(listener), kafka_timeout_ms=timeout_ms, **values
        )

    return settings


def through_kafka_python(connection: Connection, topic: str) -> list[bytes]:
    producer = KafkaProducer(**connection.for_kafka_python(), acks="all")
    try:
        producer.send(topic, value=b"kafka-python", partition=0).get(10)
    finally:
        producer.close()
    consumer = KafkaConsumer(**connection.for_kafka_python(), consumer_timeout_ms=10_000)
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning(TopicPartition(topic, 0))
        return [next(consumer).value]
    finally:
        consumer.close()


async def through_aiokafka(connection: Connection, topic: str) -> list[bytes]:
    async with AIOKafkaProducer(**connection.for_aiokafka(), acks="all") as producer:
        await producer.send_and_wait(topic, b"aiokafka", partition=1)
    async with AIOKafkaConsumer(**connection.for_aiokafka()) as consumer:
        consumer.assign([AioTopicPartition(topic, 1)])
        await consumer.seek_to_beginning(AioTopicPartition(topic, 1))
        return [(await asyncio.wait_for(consumer.getone(), 10)).value]


@pytest.mark.parametrize("way", WAYS)
def test_every_client_gets_in(secured: Secured, kafka_lane: Topics, way: str) -> None:
    connection = connection_of(secured(way))
    topic = kafka_lane.name("crashes")
    assert through_kafka_python(connection, topic) == [b"kafka-python"]
    assert asyncio.run(through_aiokafka(connection, topic)) == [b"aiokafka"]


def diff(settings: Settings) -> Result:
    changed = {
        name: getattr(settings, name)
        for name in Settings.__struct_fields__
        if getattr(settings, name) != getattr(Settings(), name)
    }
    environment = {f"CORDON_{name.upper()}": str(value) for name, value in changed.items()}
    return CliRunner().invoke(main, ["topics", "diff"], env=environment)


@pytest.mark.parametrize("way", ["tls", "mutual tls", "sasl_tls SCRAM-SHA-512"])
def test_topics_are_compared_over_each_listener(secured: Secured, way: str) -> None:
    assert (diff(secured(way)).output, diff(secured(way)).exit_code) == (
        f"{len(TOPICS)} topics are as they should be\n",
        0,
    )


@pytest.mark.parametrize(
    ("way", "wrong", "told"),
    [
        ("sasl_tls SCRAM-SHA-512", {"kafka_password_file": "wrong-password"}, "kafka_password_file"),
        ("sasl_plaintext SCRAM-SHA-256", {"kafka_username": "mallory"}, "kafka_username"),
        ("tls", {"kafka_ca_file": "other-ca.pem"}, "kafka_ca_file"),
        ("tls", {"kafka_ca_file": ""}, "kafka_ca_file"),
        (
            "mutual tls",
            {"kafka_cert_file": "other-client.pem", "kafka_key_file": "other-client.key"},
            "kafka_cert_file",
        ),
        ("mutual tls", {"kafka_cert_file": "", "kafka_key_file": ""}, "kafka_cert_file"),
    ],
)
def test_who_is_refused_is_told_which_setting_to_check(
    secured: Secured, way: str, wrong: dict[str, str], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        pytest.raises(LogUnavailableError, match=f"check [a-z_, ]*{told}") as refusal,
        admin_client(connection_of(secured(way, timeout_ms=REFUSED_MS, **wrong))),
    ):
        pass
    assert "127.0.0.1:" in str(refusal.value)
    assert "cordon-password" not in str(refusal.value)
    # The client's own log of each attempt is in the message, not on the terminal.
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_listener_of_another_kind_is_told_apart(kafka: LocalKafka, secured: Secured, kafka_lane: Topics) -> None:
    plaintext = kafka_settings(kafka, kafka_lane, kafka_bootstrap=kafka.bootstrap_of("TLS"), kafka_timeout_ms=1000)
    with pytest.raises(LogUnavailableError, match="kafka_security"), admin_client(connection_of(plaintext)):
        pass
    tls = connection_of(secured("tls"))
    spoken = Connection(tuple(kafka.bootstrap.split(",")), "SSL", tls.tls, timeout_ms=1000)
    with pytest.raises(LogUnavailableError, match="kafka_security"), admin_client(spoken):
        pass


def test_the_command_says_the_same_and_ends_with_2(secured: Secured) -> None:
    refused = diff(secured("sasl_plaintext SCRAM-SHA-512", timeout_ms=REFUSED_MS, kafka_password_file="wrong-password"))
    assert refused.exit_code == 2
    assert re.search("check kafka_username(,| and) kafka_password_file", refused.output)


@pytest.mark.parametrize("name", ["kafka_ca_file", "kafka_cert_file", "kafka_key_file"])
def test_a_missing_file_is_named_before_anything_connects(secured: Secured, name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} .*absent.pem"):
        connection_of(secured("mutual tls", **{name: "absent.pem"}))
    done = diff(secured("mutual tls", **{name: "absent.pem"}))
    assert done.exit_code == 2
    assert name in done.output
