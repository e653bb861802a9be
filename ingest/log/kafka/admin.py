"""A client for administration, and why it can't connect in words that name the setting.

Used by `cordon topics`. kafka-python waits out its time and then says only that it could not bootstrap; the reason
stands in its log, once for each attempt. So the address and TLS are tried here first, and the log is read for the rest.
"""

import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient
from kafka.net.selector import NetworkSelector

from ingest.log.interface import LogUnavailableError
from ingest.log.kafka.closing import ClosingManager
from ingest.log.kafka.connection import Connection

_NETWORK = logging.getLogger("kafka.net")
# What the client's log says, and what a person should look at; the first that fits wins.
_REMEDIES = (
    (
        "SaslAuthenticationFailed",
        "Kafka refused the user name or password: check kafka_username and kafka_password_file",
    ),
    ("UnsupportedSaslMechanism", "Kafka does not offer this SASL mechanism: check kafka_sasl_mechanism"),
    ("ALERT", "Kafka refused our certificate: check kafka_cert_file and kafka_key_file"),
    ("ECONNREFUSED", "a broker does not listen where Kafka says it does: check its advertised.listeners"),
)
_HUNG_UP = "socket disconnected"


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
            net = NetworkSelector(**configs)
            opened.append(KafkaNetClient(net, ClosingManager(net, **configs)))
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
                f"{_remedy(connection, said) or error}"
            ) from error
        try:
            yield admin
        except (KafkaError, OSError) as error:
            raise LogUnavailableError(
                f"Kafka at {','.join(connection.bootstrap)} did not do what was asked: "
                f"{_remedy(connection, said) or error}"
            ) from error
        finally:
            admin.close()


def _require_listener(connection: Connection) -> None:
    # Asked before kafka-python is: it would try until its time is up, and lose a socket each time it fails.
    errors = []
    for address in connection.bootstrap:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        try:
            with socket.create_connection((host, int(port)), connection.timeout_ms / 1000) as plain:
                if connection.tls is not None:
                    connection.tls.wrap_socket(plain, server_hostname=host).close()
            return
        except ssl.SSLCertVerificationError as error:
            check = "check kafka_ca_file, and that the certificate names this host"
            errors.append(f"{address}'s certificate can't be verified ({error.verify_message}): {check}")
        except ssl.SSLError as error:
            signs = "ALERT" in str(error)
            check = "check kafka_cert_file and kafka_key_file" if signs else "check kafka_security and the port"
            errors.append(f"no TLS handshake with {address} ({error.reason or error}): {check}")
        except OSError as error:
            reason = error.strerror or str(error)
            errors.append(f"nothing answers at {address} ({reason}): start Kafka or check kafka_bootstrap")
    raise LogUnavailableError("; ".join(errors))


def _remedy(connection: Connection, said: list[str]) -> str:
    for sign, advice in _REMEDIES:
        found = next((line for line in said if sign in line), None)
        if found is not None:
            return f"{advice} ({found})"
    if any(_HUNG_UP in line for line in said):
        # A broker that refuses a password may hang up before it has said so.
        user = "kafka_username, kafka_password_file, " if connection.mechanism else ""
        return f"the broker hung up at once: check {user}kafka_security and the ports in kafka_bootstrap"
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
