"""DSSE envelopes with Ed25519: what makes an event believed.

The signature is over the pre-authentication encoding of payload type and payload bytes (DSSE v1.0.2, protocol.md), so
nothing is canonicalised: what was signed is what is read. Invariant: `PublicKeys.open` returns payload bytes only if a
known key signed exactly those bytes under exactly that type.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from signals.events import PAYLOAD_TYPE, Envelope, Signature

KEYS_MAX = 64
SIGNATURES_MAX = 8


class SwitchError(Exception):
    """An event or a stream of them can't be believed; the message says why and what to do."""


class MalformedEventError(SwitchError):
    """The bytes are no DSSE envelope, or what it holds is no kill-switch CloudEvent."""


class UnknownKeyError(SwitchError):
    """No known key made a signature: fetch the current key set, or somebody else signed this."""


class BadSignatureError(SwitchError):
    """A known key is named but did not sign these bytes: the event was altered or forged."""


class WrongPayloadTypeError(SwitchError):
    """Something other than a kill-switch event was signed."""


class KeyFormatError(SwitchError):
    """A key or key set can't be read."""


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding: lengths in decimal ASCII, so no two inputs share an encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def raw_public(key: Ed25519PublicKey) -> bytes:
    """Return the 32 bytes of a public key."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def key_id(key: Ed25519PublicKey) -> str:
    """Return the key's id: the first 128 bits of SHA-256 of its raw 32 bytes, hexadecimal."""
    return hashlib.sha256(raw_public(key)).hexdigest()[:32]


class Signer:
    """Signs payloads with one private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        """Take the private key."""
        self._private = private
        self.public = private.public_key()
        self.key_id = key_id(self.public)

    def sign(self, payload: bytes, payload_type: str = PAYLOAD_TYPE) -> Envelope:
        """Return the payload in a signed envelope; the same payload gives the same envelope (RFC 8032)."""
        signature = self._private.sign(pae(payload_type, payload))
        return Envelope(
            payload=base64.b64encode(payload).decode(),
            payload_type=payload_type,
            signatures=[Signature(keyid=self.key_id, sig=base64.b64encode(signature).decode())],
        )


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


class PublicKeys:
    """The public keys whose signatures are believed, by id."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        """Take the keys.

        Raises:
            KeyFormatError: more than `KEYS_MAX`.
        """
        self._keys: Mapping[str, Ed25519PublicKey] = {key_id(key): key for key in keys}
        if len(self._keys) > KEYS_MAX:
            raise KeyFormatError(f"a key set holds at most {KEYS_MAX} keys: retire the oldest")

    @property
    def ids(self) -> list[str]:
        """Return the key ids, in the set's order."""
        return list(self._keys)

    def keys(self) -> list[Ed25519PublicKey]:
        """Return the keys, in the set's order."""
        return list(self._keys.values())

    def open(self, envelope: Envelope, payload_type: str = PAYLOAD_TYPE) -> bytes:
        """Return the payload after verifying that a known key signed it.

        Raises:
            WrongPayloadTypeError: the envelope says it holds something else.
            MalformedEventError: base64 is not canonical, or there are no or too many signatures.
            UnknownKeyError: none of the signatures names a known key.
            BadSignatureError: a known key is named, and no known key signed these bytes.
        """
        if envelope.payload_type != payload_type:
            raise WrongPayloadTypeError(
                f"the envelope holds {envelope.payload_type!r}, not {payload_type!r}: this is no kill-switch event"
            )
        if not 1 <= len(envelope.signatures) <= SIGNATURES_MAX:
            raise MalformedEventError(
                f"an envelope carries 1 to {SIGNATURES_MAX} signatures, not {len(envelope.signatures)}"
            )
        payload = _decode(envelope.payload, "payload")
        known = [signature for signature in envelope.signatures if signature.keyid in self._keys]
        if not known:
            named = ", ".join(signature.keyid[:64] for signature in envelope.signatures)
            raise UnknownKeyError(
                f"signed by {named}; known keys are {', '.join(self.ids) or 'none'}. Get the current key set from "
                f"somebody you trust (`cordon keys`), or refuse the event: another party signed it"
            )
        for signature in known:
            try:
                self._keys[signature.keyid].verify(_decode(signature.sig, "sig"), pae(envelope.payload_type, payload))
                return payload
            except InvalidSignature:
                continue
        raise BadSignatureError(
            f"key {known[0].keyid} did not sign this payload: the event was altered or forged. Do not obey it"
        )

    def to_json(self) -> bytes:
        """Return the set as a JSON Web Key Set (RFC 7517 and 8037)."""
        keys = [
            {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": _url64(raw_public(key))}
            for kid, key in self._keys.items()
        ]
        return msgspec.json.encode({"keys": keys})

    @classmethod
    def parse(cls, data: bytes) -> "PublicKeys":
        """Read a JSON Web Key Set, or a public key in PEM.

        Raises:
            KeyFormatError: neither, or a key that is not Ed25519.
        """
        if data.lstrip().startswith(b"-----BEGIN"):
            return cls([_pem_key(data)])
        try:
            return cls([_jwk_key(item) for item in msgspec.json.decode(data, type=_KeySet).keys])
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise KeyFormatError(
                f"no key set ({error}): give the JSON that /v1/keys answers, or an Ed25519 public key in PEM"
            ) from error


def _pem_key(data: bytes) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(data)
    except ValueError as error:
        raise KeyFormatError(f"no public key in this PEM: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFormatError("the key in this PEM is not Ed25519")
    return key


def _jwk_key(item: Mapping[str, Any]) -> Ed25519PublicKey:
    if item.get("kty") != "OKP" or item.get("crv") != "Ed25519":
        raise KeyFormatError(f"key {item.get('kid')!r} is not Ed25519 (kty OKP, crv Ed25519)")
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(str(item["x"]) + "=="))
    if item.get("kid") != key_id(key):
        raise KeyFormatError(f"key {item.get('kid')!r} has the id {key_id(key)}: the set was altered")
    return key


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str, field: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedEventError(f"{field} is not base64: {error}") from error
    if base64.b64encode(data).decode() != text:
        # Two texts for the same bytes would let an altered envelope pass as the same one.
        raise MalformedEventError(f"{field} is not canonical base64: the envelope was altered")
    return data
