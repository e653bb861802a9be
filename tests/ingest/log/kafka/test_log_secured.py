"""Kafka's log over TLS, mutual TLS and SASL; and what it says to those who are not let in."""

from pathlib import Path

import pytest

from deploy.kafka.broker import LocalKafka
from ingest.clock import WallClock
from ingest.log.interface import Entry, LogUnavailableError, TopicPartition
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from support.kafka import kafka_settings

CA = {"kafka_ca_file": "ca.pem"}
OURS = {"kafka_cert_file": "client.pem", "kafka_key_file": "client.key"}
WAYS = {
    "TLS": {"kafka_security": "tls", **CA},
    "MTLS": {"kafka_security": "tls", **CA, **OURS},
    "SASL": {"kafka_security": "sasl_plaintext", "kafka_username": "cordon"},
    "SASLTLS": {"kafka_security": "sasl_tls", "kafka_username": "cordon", **CA},
}


def log_through(kafka: LocalKafka, topics: Topics, listener: str, password: Path, **other: object) -> KafkaLog:
    """Return a log that comes in by one of the broker's listeners."""
    assert kafka.security is not None
    values: dict[str, object] = dict(WAYS[listener])
    for name in values:
        if name.endswith("_file"):
            values[name] = str(kafka.security.directory / str(values[name]))
    if listener.startswith("SASL"):
        values["kafka_password_file"] = str(password)
    settings = kafka_settings(kafka, topics, kafka_bootstrap=kafka.bootstrap_of(listener), **{**values, **other})
    return KafkaLog(
        connection_of(settings), topic_specs(topics), WallClock(), Metrics(), lane=topics.lane, client="secured"
    )


@pytest.mark.parametrize("listener", WAYS)
def test_everything_works_over_each_listener(
    kafka: LocalKafka, kafka_lane: Topics, listener: str, tmp_path: Path
) -> None:
    assert kafka.security is not None
    password = tmp_path / "password"
    password.write_text(kafka.security.users["cordon"])
    log = log_through(kafka, kafka_lane, listener, password)
    source = TopicPartition(kafka_lane.name("crashes"), 0)
    value = bytes(range(256)) * 2000
    log.append([Entry(*source, None, value)])
    fence = log.claim("w")
    log.append([Entry(*source, None, value)], fence)
    log.commit("g", {source: 1}, fence)
    assert log.wait({source: 0}, 5)
    assert [record.value for record in log.read(source, 0)] == [value, value]
    assert log.committed("g", source) == 1
    log.close()


def test_a_wrong_password_is_told(kafka: LocalKafka, kafka_lane: Topics, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("guessed")
    log = log_through(kafka, kafka_lane, "SASLTLS", password, kafka_timeout_ms=1000)
    with pytest.raises(LogUnavailableError, match="kafka_password_file") as refusal:
        log.claim("w")
    assert "guessed" not in str(refusal.value)
    log.close()
