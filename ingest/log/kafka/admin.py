"""A client for administration, and why it can't connect in words that name the setting.

kafka-python waits out its time and then says only that it could not bootstrap; the reason stands in its log, once for
each attempt. Here that log is read, kept from the terminal, and turned into one message.
"""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from ingest.log.interface import LogUnavailableError
from ingest.log.kafka.connection import Connection

_NETWORK = logging.getLogger("kafka.net")
# What the client's log says, and what a person should look at; the first that fits wins.
_REMEDIES = (
    (
        "SaslAuthenticationFailed",
        "Kafka refused the user name or password: check kafka_username and kafka_password_file",
    ),
    ("UnsupportedSaslMechanism", "Kafka does not offer this SASL mechanism: check kafka_sasl_mechanism"),
    ("CERTIFICATE_VERIFY_FAILED", "the brokers' certificate can't be verified: check kafka_ca_file and the host names"),
    ("ALERT", "Kafka refused our certificate: check kafka_cert_file and kafka_key_file"),
    ("Handshake failed", "no TLS is spoken there: check kafka_security and the ports in kafka_bootstrap"),
    ("ECONNREFUSED", "a broker does not listen where Kafka says it does: check its advertised.listeners"),
    ("socket disconnected", "the broker hung up at once: check kafka_security and the ports in kafka_bootstrap"),
)


@contextmanager
def admin_client(connection: Connection) -> Iterator[KafkaAdminClient]:
    """Yield a connected client for administration, closed at the end.

    Raises:
        LogUnavailableError: Kafka can't be reached or did not answer in time; the message says why, as far as is known.
    """
    _require_listener(connection)
    with _listening() as said:
        opened: list[KafkaNetClient] = []

        def opening(**configs: Any) -> KafkaNetClient:
            opened.append(KafkaNetClient(**configs))
            return opened[-1]

        try:
            admin = KafkaAdminClient(
                **connection.for_kafka_python(),
                kafka_client=opening,
                bootstrap_timeout_ms=connection.timeout_ms,
                request_timeout_ms=connection.timeout_ms,
            )
        except (KafkaError, OSError) as error:
            # The constructor leaves its thread and sockets behind when it fails.
            for client in opened:
                client.close()
                client._net.stop()  # as KafkaAdminClient.close does
            raise LogUnavailableError(
                f"no answer from Kafka at {','.join(connection.bootstrap)} within {connection.timeout_ms} ms: "
                f"{remedy(said) or error}"
            ) from error
        try:
            yield admin
        except (KafkaError, OSError) as error:
            raise LogUnavailableError(
                f"Kafka at {','.join(connection.bootstrap)} did not do what was asked: {remedy(said) or error}"
            ) from error
        finally:
            admin.close()


def _require_listener(connection: Connection) -> None:
    # Asked before kafka-python is: it would try until its time is up, and lose a socket each time it is refused.
    errors = []
    for address in connection.bootstrap:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), connection.timeout_ms / 1000).close()
        except OSError as error:
            errors.append(f"{address} ({error.strerror or error})")
        else:
            return
    raise LogUnavailableError(f"nothing listens at {', '.join(errors)}: start Kafka or correct kafka_bootstrap")


def remedy(said: list[str]) -> str:
    """Return what a person should look at, given the lines of the client's log; empty when they tell nothing."""
    for sign, advice in _REMEDIES:
        found = next((line for line in said if sign in line), None)
        if found is not None:
            return f"{advice} ({found})"
    return ""


class _Lines(logging.Handler):
    """Keeps the first lines that were logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line, unless there are many."""
        if len(self.lines) < 200:
            self.lines.append(record.getMessage())


@contextmanager
def _listening() -> Iterator[list[str]]:
    handler = _Lines()
    propagated = _NETWORK.propagate
    _NETWORK.addHandler(handler)
    _NETWORK.propagate = False
    try:
        yield handler.lines
    finally:
        _NETWORK.removeHandler(handler)
        _NETWORK.propagate = propagated
