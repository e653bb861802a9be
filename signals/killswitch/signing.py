"""DSSE envelopes with Ed25519: what makes an event believed.

The signature is over the pre-authentication encoding of payload type and payload bytes (DSSE v1.0.2, protocol.md), so
nothing is canonicalised: what was signed is what is read. Invariant: `PublicKeys.open` returns payload bytes only if a
known key signed exactly those bytes under exactly that type.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

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


class RetiredKeyError(SwitchError):
    """The keys that signed this were retired before it was decided: whoever signed it should not have been able to."""


class KeyFormatError(SwitchError):
    """A key or key set can't be read."""


class Signs(Protocol):
    """Whoever signs payloads; with one key, or with two while one follows the other."""

    def sign(self, payload: bytes, payload_type: str = PAYLOAD_TYPE) -> Envelope:
        """Return the payload in a signed envelope."""
        ...


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
        return envelope_of([self], payload, payload_type)

    def signature(self, message: bytes) -> Signature:
        """Return the signature of an encoded message."""
        return Signature(keyid=self.key_id, sig=base64.b64encode(self._private.sign(message)).decode())


def envelope_of(signers: Iterable[Signer], payload: bytes, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Return the payload in an envelope with a signature of each signer."""
    message = pae(payload_type, payload)
    return Envelope(
        payload=base64.b64encode(payload).decode(),
        payload_type=payload_type,
        signatures=[signer.signature(message) for signer in signers],
    )


class KeyTerm(msgspec.Struct, frozen=True, kw_only=True):
    """When a key signs.

    Attributes:
        from_ms: it was published before, and signs from then on; 0: as long as it is known.
        until_ms: what is decided from then on is not believed on this key's word; 0: no end is known.
    """

    from_ms: int = 0
    until_ms: int = 0

    def covers(self, at_ms: int) -> bool:
        """Tell whether what was decided at `at_ms` may be signed with the key."""
        return not self.until_ms or at_ms < self.until_ms


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


class PublicKeys:
    """The public keys whose signatures are believed, by id, each with its term."""

    def __init__(self, keys: Iterable[Ed25519PublicKey], terms: Mapping[str, KeyTerm] | None = None) -> None:
        """Take the keys.

        Args:
            keys: in the order in which they are listed.
            terms: by key id; a key without one has no end.

        Raises:
            KeyFormatError: more than `KEYS_MAX`.
        """
        by_id = {key_id(key): key for key in keys}
        self._known: tuple[Mapping[str, Ed25519PublicKey], Mapping[str, KeyTerm]] = (by_id, dict(terms or {}))
        if len(by_id) > KEYS_MAX:
            raise KeyFormatError(f"a key set holds at most {KEYS_MAX} keys: retire the oldest")

    @property
    def ids(self) -> list[str]:
        """Return the key ids, in the set's order."""
        return list(self._known[0])

    def keys(self) -> list[Ed25519PublicKey]:
        """Return the keys, in the set's order."""
        return list(self._known[0].values())

    def term(self, kid: str) -> KeyTerm:
        """Return when a key signs."""
        return self._known[1].get(kid, KeyTerm())

    def terms(self) -> dict[str, KeyTerm]:
        """Return the terms of all keys by id, in the set's order."""
        return {kid: self.term(kid) for kid in self.ids}

    def learn(self, other: "PublicKeys") -> None:
        """Become the same set as `other`, at once for every thread: a key was rotated while the process runs."""
        self._known = other._known

    def require_term(self, signed_by: Iterable[str], at_ms: int, what: str) -> None:
        """Refuse what was decided after the end of every key that signed it.

        Args:
            signed_by: ids of the known keys that signed it.
            at_ms: when it was decided, as it says.
            what: for the message.

        Raises:
            RetiredKeyError: none of the keys could sign any more.
        """
        keys = list(signed_by)
        if not any(self.term(kid).covers(at_ms) for kid in keys):
            raise RetiredKeyError(
                f"{what} was decided after key {', '.join(keys)} was retired: do not obey it, and tell people that a "
                f"retired key is still used. If Cordon's keys were rotated lately, get the current key set"
            )

    def open(self, envelope: Envelope, payload_type: str = PAYLOAD_TYPE) -> bytes:
        """Return the payload after verifying that a known key signed it; see `open_signed`."""
        return self.open_signed(envelope, payload_type)[0]

    def open_signed(self, envelope: Envelope, payload_type: str = PAYLOAD_TYPE) -> tuple[bytes, list[str]]:
        """Return the payload, and the ids of the known keys that signed it: at least one.

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
        keys = self._known[0]
        known = [signature for signature in envelope.signatures if signature.keyid in keys]
        if not known:
            named = ", ".join(signature.keyid[:64] for signature in envelope.signatures)
            raise UnknownKeyError(
                f"signed by {named}; known keys are {', '.join(keys) or 'none'}. Get the current key set from "
                f"somebody you trust (`cordon keys export`), or refuse the event: another party signed it"
            )
        message = pae(envelope.payload_type, payload)
        signed_by = [one.keyid for one in known if _signed(keys[one.keyid], one, message)]
        if not signed_by:
            raise BadSignatureError(
                f"key {known[0].keyid} did not sign this payload: the event was altered or forged. Do not obey it"
            )
        return payload, signed_by

    def to_json(self) -> bytes:
        """Return the set as a JSON Web Key Set (RFC 7517 and 8037)."""
        return msgspec.json.encode({"keys": [_jwk(kid, key, self.term(kid)) for kid, key in self._known[0].items()]})

    @classmethod
    def parse(cls, data: bytes) -> "PublicKeys":
        """Read a JSON Web Key Set, or a public key in PEM.

        Raises:
            KeyFormatError: neither, or a key that is not Ed25519.
        """
        if data.lstrip().startswith(b"-----BEGIN"):
            return cls([_pem_key(data)])
        try:
            items = msgspec.json.decode(data, type=_KeySet).keys
            keys = [_jwk_key(item) for item in items]
            return cls(keys, {key_id(key): _jwk_term(item) for key, item in zip(keys, items, strict=True)})
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise KeyFormatError(
                f"no key set ({error}): give the JSON that /v1/keys answers, or an Ed25519 public key in PEM"
            ) from error


def _signed(key: Ed25519PublicKey, signature: Signature, message: bytes) -> bool:
    try:
        key.verify(_decode(signature.sig, "sig"), message)
    except InvalidSignature:
        return False
    return True


def _pem_key(data: bytes) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(data)
    except ValueError as error:
        raise KeyFormatError(f"no public key in this PEM: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFormatError("the key in this PEM is not Ed25519")
    return key


def _jwk(kid: str, key: Ed25519PublicKey, term: KeyTerm) -> dict[str, Any]:
    found: dict[str, Any] = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid}
    found["x"] = _url64(raw_public(key))
    # As in JSON Web Tokens: seconds, from which on and until which.
    return found | {name: ms / 1000 for name, ms in (("nbf", term.from_ms), ("exp", term.until_ms)) if ms}


def _jwk_term(item: Mapping[str, Any]) -> KeyTerm:
    from_ms, until_ms = (round(float(item.get(name, 0)) * 1000) for name in ("nbf", "exp"))
    if from_ms < 0 or until_ms < 0:
        raise KeyFormatError(f"key {item.get('kid')!r} has a term before 1970: the set was altered")
    return KeyTerm(from_ms=from_ms, until_ms=until_ms)


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
