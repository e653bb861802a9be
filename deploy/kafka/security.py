"""Certificates and users for a local broker's secured listeners, made anew for each broker.

Listeners: `TLS` (server certificate), `MTLS` (client certificate required), `SASL` (SCRAM or PLAIN without TLS) and
`SASLTLS` (the same over TLS). All of them beside the plaintext one, so that one broker serves every test of security.
"""

import datetime
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LISTENERS: dict[str, str] = {"TLS": "SSL", "MTLS": "SSL", "SASL": "SASL_PLAINTEXT", "SASLTLS": "SASL_SSL"}
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
_DAYS_VALID = 30


@dataclass(frozen=True, slots=True)
class Security:
    """Certificates in a folder, and the users a broker knows.

    Attributes:
        directory: holds `ca.pem`, `broker.pem`, `client.pem`, `client.key` and a stranger's `other-ca.pem`,
            `other-client.pem`, `other-client.key`, signed by an authority that the broker does not know.
        users: name to password, for SCRAM and PLAIN alike.
    """

    directory: Path
    users: Mapping[str, str]

    def protocols(self) -> dict[str, str]:
        """Return each secured listener's protocol as Kafka calls it."""
        return dict(LISTENERS)

    def properties(self) -> dict[str, str]:
        """Return the broker's properties for these listeners."""
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required " + " ".join(
            f'user_{name}="{password}"' for name, password in self.users.items()
        )
        values = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.directory / "broker.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.directory / "ca.pem"),
            "listener.name.mtls.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": ",".join((*SCRAM, "PLAIN")),
        }
        for listener in ("sasl", "sasltls"):
            for mechanism in SCRAM:
                values[f"listener.name.{listener}.{mechanism.lower()}.sasl.jaas.config"] = (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                )
            values[f"listener.name.{listener}.plain.sasl.jaas.config"] = f"{plain};"
        return values

    def format_arguments(self) -> list[str]:
        """Return what formatting the storage needs to know of the users."""
        return [
            argument
            for name, password in self.users.items()
            for mechanism in SCRAM
            for argument in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]


def make_security(directory: Path, users: Mapping[str, str]) -> Security:
    """Write new certificates into `directory` and return them with the users."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = _Authority("Cordon local test CA")
    stranger = _Authority("A stranger's CA")
    _write(directory / "ca.pem", authority.pem)
    _write(directory / "other-ca.pem", stranger.pem)
    key, certificate = authority.issue("localhost")
    # Kafka reads a PEM key store as one file: the key, then its certificate and what signed it.
    _write(directory / "broker.pem", key + certificate + authority.pem)
    for name, signer in (("client", authority), ("other-client", stranger)):
        key, certificate = signer.issue(name)
        _write(directory / f"{name}.key", key)
        _write(directory / f"{name}.pem", certificate)
    return Security(directory, dict(users))


class _Authority:
    """One certificate authority that lives as long as this process."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """Return a new private key and its certificate for `name` on loopback, both as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), self._name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return (
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            certificate.public_bytes(serialization.Encoding.PEM),
        )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    # An hour back: the machine's clock may be set while the certificate is in use.
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS_VALID))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
