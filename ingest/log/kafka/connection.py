"""How Kafka is reached: the settings as arguments of each client library, checked before anything connects.

Three clients speak to the brokers: kafka-python (the log, topics), aiokafka (group consumers) and Faust (agents). All
get their addresses, TLS and credentials here, from one `SSLContext`, so that no two of them can differ. The invariant:
what is wrong in a setting is found when the process starts, and the error names the setting.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faust import SASLCredentials, SSLCredentials

from ingest.settings import Settings, SettingsError

# How old a group member's knowledge of the topics may get. A broker that has just started may say for a moment that it
# knows no topic; the leader of a group that asks then deals nothing to anybody, and the libraries' own age is 5
# minutes.
METADATA_MS = 3000
_PROTOCOLS = {"plaintext": "PLAINTEXT", "tls": "SSL", "sasl_plaintext": "SASL_PLAINTEXT", "sasl_tls": "SASL_SSL"}


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the brokers are and how they are spoken to.

    Attributes:
        bootstrap: `host:port` of the brokers asked first.
        protocol: Kafka's name of the security protocol.
        tls: the context of every TLS connection; None without TLS.
        mechanism: SASL mechanism; empty without SASL.
        username: SASL user.
        password: SASL password; never shown.
        replication: replicas of each topic.
        min_isr: replicas that must have a record before it is acknowledged.
        timeout_ms: how long one request may take before Kafka counts as away.
        session_ms: how long a group's member may be unheard of.
        transaction_ms: how long a dead writer's open transaction may hold readers up.
    """

    bootstrap: tuple[str, ...]
    protocol: str = "PLAINTEXT"
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    replication: int = 1
    min_isr: int = 1
    timeout_ms: int = 10_000
    session_ms: int = 8000
    transaction_ms: int = 10_000

    def for_kafka_python(self) -> dict[str, Any]:
        """Return the arguments that every client of kafka-python takes."""
        return {"bootstrap_servers": list(self.bootstrap), **self._security()}

    def for_aiokafka(self) -> dict[str, Any]:
        """Return the arguments that every client of aiokafka takes."""
        return {"bootstrap_servers": list(self.bootstrap), **self._security()}

    def for_faust(self) -> dict[str, Any]:
        """Return the arguments of a Faust app."""
        arguments: dict[str, Any] = {"broker": ";".join(f"kafka://{address}" for address in self.bootstrap)}
        if self.mechanism:
            arguments["broker_credentials"] = SASLCredentials(
                username=self.username, password=self.password, mechanism=self.mechanism, ssl_context=self.tls
            )
        elif self.tls is not None:
            arguments["broker_credentials"] = SSLCredentials(self.tls)
        return arguments

    def _security(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {"security_protocol": self.protocol}
        if self.tls is not None:
            arguments["ssl_context"] = self.tls
        if self.mechanism:
            arguments["sasl_mechanism"] = self.mechanism
            arguments["sasl_plain_username"] = self.username
            arguments["sasl_plain_password"] = self.password
        return arguments


def connection_of(settings: Settings) -> Connection:
    """Return the connection that the settings describe, without connecting.

    Raises:
        SettingsError: a setting is missing, contradicts another one, or names a file that cannot be used.
    """
    if settings.kafka_min_isr > settings.kafka_replication:
        raise SettingsError(
            f"kafka_min_isr {settings.kafka_min_isr} is more than kafka_replication {settings.kafka_replication}: no "
            f"record could ever be acknowledged; with one broker set both to 1"
        )
    sasl = settings.kafka_security.startswith("sasl_")
    tls = settings.kafka_security.endswith("tls")
    if not tls:
        _require_no_tls_files(settings)
    return Connection(
        bootstrap=_addresses(settings.kafka_bootstrap),
        protocol=_PROTOCOLS[settings.kafka_security],
        tls=_tls(settings) if tls else None,
        mechanism=settings.kafka_sasl_mechanism if sasl else "",
        username=_username(settings) if sasl else "",
        password=_password(settings) if sasl else "",
        replication=settings.kafka_replication,
        min_isr=settings.kafka_min_isr,
        timeout_ms=settings.kafka_timeout_ms,
        session_ms=settings.kafka_session_ms,
        transaction_ms=settings.kafka_transaction_ms,
    )


def _addresses(bootstrap: str) -> tuple[str, ...]:
    addresses = tuple(address for part in bootstrap.split(",") if (address := part.strip()))
    if not addresses:
        raise SettingsError("kafka_bootstrap is empty: set it to the brokers' addresses, `host:port` with commas")
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise SettingsError(f"kafka_bootstrap: {address!r} is no `host:port`, for instance broker-1:9092")
    return addresses


def _tls(settings: Settings) -> ssl.SSLContext:
    authorities = _file("kafka_ca_file", settings.kafka_ca_file)
    certificate = _file("kafka_cert_file", settings.kafka_cert_file)
    key = _file("kafka_key_file", settings.kafka_key_file)
    if (certificate is None) != (key is None):
        missing = "kafka_key_file" if key is None else "kafka_cert_file"
        raise SettingsError(f"{missing} is empty: mutual TLS needs kafka_cert_file and kafka_key_file, or neither")
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(f"kafka_ca_file {authorities} holds no usable CA certificates (PEM): {error}") from error
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=_no_passphrase)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise SettingsError(
                f"kafka_cert_file {certificate} and kafka_key_file {key} cannot be used: they must be a PEM "
                f"certificate and its own PEM key without a passphrase ({error})"
            ) from error
    return context


def _no_passphrase() -> str:
    # Without this, OpenSSL asks the terminal for one, and a service hangs at its start.
    raise ValueError("the key is encrypted")


def _require_no_tls_files(settings: Settings) -> None:
    for name in ("kafka_ca_file", "kafka_cert_file", "kafka_key_file"):
        if getattr(settings, name):
            raise SettingsError(
                f"{name} is set but kafka_security is {settings.kafka_security}, which uses no TLS: "
                f"set kafka_security to tls or sasl_tls, or empty {name}"
            )


def _username(settings: Settings) -> str:
    if not settings.kafka_username:
        raise SettingsError(f"kafka_username is empty: kafka_security {settings.kafka_security} needs one")
    return settings.kafka_username


def _password(settings: Settings) -> str:
    path = _file("kafka_password_file", settings.kafka_password_file)
    if path is None:
        raise SettingsError(f"kafka_password_file is empty: kafka_security {settings.kafka_security} needs one")
    try:
        password = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"kafka_password_file {path} cannot be read as text: {error}") from error
    if not password:
        raise SettingsError(f"kafka_password_file {path} is empty: write the password into it")
    return password


def _file(name: str, path: str) -> str | None:
    if not path:
        return None
    if not Path(path).is_file():
        raise SettingsError(f"{name} {path} does not exist or is no file: correct the path")
    return path
