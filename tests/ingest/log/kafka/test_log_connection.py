"""Kafka's settings are checked before anything connects, and the error names the setting."""

from pathlib import Path

import pytest

from ingest.log.kafka.connection import connection_of
from ingest.settings import Settings, SettingsError


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kafka_bootstrap": ""}, "kafka_bootstrap is empty"),
        ({"kafka_bootstrap": "broker-1"}, "kafka_bootstrap: 'broker-1'"),
        ({"kafka_bootstrap": "broker-1:9092,broker-2:port"}, "'broker-2:port'"),
        ({"kafka_bootstrap": "broker-1:0"}, "'broker-1:0'"),
        ({"kafka_replication": 1}, "kafka_min_isr 2 is more than kafka_replication 1"),
        ({"kafka_ca_file": "absent.pem"}, "kafka_ca_file is set but kafka_security is plaintext"),
        ({"kafka_security": "tls", "kafka_ca_file": "absent.pem"}, "kafka_ca_file absent.pem does not exist"),
        ({"kafka_security": "tls", "kafka_ca_file": "{empty}"}, "kafka_ca_file .* holds no usable CA"),
        ({"kafka_security": "tls", "kafka_cert_file": "{empty}"}, "kafka_key_file is empty"),
        ({"kafka_security": "tls", "kafka_key_file": "{empty}"}, "kafka_cert_file is empty"),
        (
            {"kafka_security": "tls", "kafka_cert_file": "{empty}", "kafka_key_file": "{empty}"},
            "kafka_cert_file .* cannot be used",
        ),
        ({"kafka_security": "sasl_plaintext"}, "kafka_username is empty"),
        ({"kafka_security": "sasl_tls", "kafka_username": "u"}, "kafka_password_file is empty"),
        (
            {"kafka_security": "sasl_tls", "kafka_username": "u", "kafka_password_file": "{empty}"},
            "kafka_password_file .* is empty: write",
        ),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, values: dict[str, object], told: str) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    filled = {name: str(empty) if value == "{empty}" else value for name, value in values.items()}
    with pytest.raises(SettingsError, match=told):
        connection_of(Settings(**{"kafka_bootstrap": "broker-1:9092", **filled}))  # type: ignore[arg-type]  # as checked there


def test_the_clients_get_the_same_and_the_password_is_not_shown(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    connection = connection_of(
        Settings(
            kafka_bootstrap="broker-1:9092, [::1]:9093",
            kafka_security="sasl_tls",
            kafka_username="cordon",
            kafka_password_file=str(password),
        )
    )
    arguments = connection.for_kafka_python()
    assert arguments == connection.for_aiokafka()
    assert arguments["bootstrap_servers"] == ["broker-1:9092", "[::1]:9093"]
    assert (arguments["sasl_plain_password"], arguments["ssl_context"]) == ("s3cret", connection.tls)
    faust = connection.for_faust()
    assert faust["broker"] == "kafka://broker-1:9092;kafka://[::1]:9093"
    assert (faust["broker_credentials"].password, faust["broker_credentials"].ssl_context) == ("s3cret", connection.tls)
    assert "s3cret" not in repr(connection)


def test_plaintext_needs_an_address_and_nothing_else() -> None:
    connection = connection_of(Settings(kafka_bootstrap="broker-1:9092"))
    assert connection.for_kafka_python() == {
        "bootstrap_servers": ["broker-1:9092"],
        "security_protocol": "PLAINTEXT",
    }
    assert connection.for_faust() == {"broker": "kafka://broker-1:9092"}
