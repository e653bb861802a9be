"""Envelopes: DSSE's own example, and that nothing altered or foreign is ever believed."""

import base64
import stat
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from detectors.verdict import DecisionWord
from ingest.events import encoder
from signals.events import Envelope
from signals.killswitch.keys import PRIVATE_NAME, KeyFiles
from signals.killswitch.signing import (
    BadSignatureError,
    KeyFormatError,
    MalformedEventError,
    PublicKeys,
    SwitchError,
    UnknownKeyError,
    WrongPayloadTypeError,
    pae,
)
from signals.killswitch.verify import open_event, parse_envelope
from support.switches import KEYS, SIGNER, STRANGER, SwitchRig, verdict


def event_bytes() -> bytes:
    rig = SwitchRig()
    rig.say(verdict(DecisionWord.KILL))
    rig.settle()
    return rig.records(rig.killswitch)[0].value or b""


EVENT = event_bytes()


def test_pae_gives_the_example_of_the_specification() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("", b"") == b"DSSEv1 0  0 "
    assert pae("é", b"\x00") == b"DSSEv1 2 \xc3\xa9 1 \x00"


@given(kinds=st.tuples(st.text(), st.text()), payloads=st.tuples(st.binary(), st.binary()))
def test_no_two_inputs_share_an_encoding(kinds: tuple[str, str], payloads: tuple[bytes, bytes]) -> None:
    same = (kinds[0], payloads[0]) == (kinds[1], payloads[1])
    assert (pae(kinds[0], payloads[0]) == pae(kinds[1], payloads[1])) is same


def test_what_was_signed_is_what_is_read() -> None:
    assert KEYS.open(SIGNER.sign(b"payload")) == b"payload"


@given(place=st.integers(0, len(EVENT) - 1), flip=st.integers(1, 255))
def test_an_altered_byte_never_changes_what_is_believed(place: int, flip: int) -> None:
    altered = bytearray(EVENT)
    altered[place] ^= flip
    try:
        opened = open_event(parse_envelope(bytes(altered)), KEYS)
    except SwitchError:
        return
    # A flip in an ignored part of the JSON around the payload leaves payload and signature as they were.
    assert opened.payload == open_event(parse_envelope(EVENT), KEYS).payload


@given(data=st.data(), part=st.sampled_from(["payload", "sig"]))
def test_an_altered_payload_or_signature_is_refused(data: st.DataObject, part: str) -> None:
    envelope = parse_envelope(EVENT)
    whole = base64.b64decode(envelope.payload if part == "payload" else envelope.signatures[0].sig)
    altered = bytearray(whole)
    altered[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    text = base64.b64encode(bytes(altered)).decode()
    if part == "payload":
        envelope.payload = text
    else:
        envelope.signatures[0].sig = text
    with pytest.raises(BadSignatureError, match="altered or forged"):
        open_event(envelope, KEYS)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused_with_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(SwitchError):
        open_event(parse_envelope(data), KEYS)


def test_a_stranger_is_named() -> None:
    envelope = STRANGER.sign(KEYS.open(parse_envelope(EVENT)))
    with pytest.raises(UnknownKeyError, match=STRANGER.key_id):
        open_event(envelope, KEYS)


def test_a_stranger_under_our_key_id_is_refused() -> None:
    envelope = STRANGER.sign(KEYS.open(parse_envelope(EVENT)))
    envelope.signatures[0].keyid = SIGNER.key_id
    with pytest.raises(BadSignatureError):
        open_event(envelope, KEYS)


def test_one_known_signature_among_strangers_is_enough() -> None:
    envelope = parse_envelope(EVENT)
    envelope.signatures = [*STRANGER.sign(b"x").signatures, *envelope.signatures]
    assert open_event(envelope, KEYS).switch.number == 1


def test_another_payload_type_is_refused_even_if_signed() -> None:
    envelope = SIGNER.sign(KEYS.open(parse_envelope(EVENT)), "application/vnd.in-toto+json")
    with pytest.raises(WrongPayloadTypeError, match="in-toto"):
        open_event(envelope, KEYS)
    envelope.payload_type = "application/cloudevents+json"
    with pytest.raises(BadSignatureError):
        open_event(envelope, KEYS)


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", "other/1"), ("type", "io.cordon.other"), ("specversion", "0.3"), ("subject", "x"), ("source", "/cordon/x")],
)
def test_a_signed_event_that_contradicts_itself_is_refused(field: str, value: str) -> None:
    event = msgspec.json.decode(KEYS.open(parse_envelope(EVENT)))
    event[field] = value
    with pytest.raises(MalformedEventError):
        open_event(SIGNER.sign(encoder.encode(event)), KEYS)


def test_a_signed_payload_that_is_no_event_is_refused() -> None:
    with pytest.raises(MalformedEventError, match="CloudEvent"):
        open_event(SIGNER.sign(b'{"hello": "world"}'), KEYS)


@pytest.mark.parametrize("payload", ["aGk", "aGl=", "aGk=\n", "a-k_"])
def test_base64_must_be_canonical(payload: str) -> None:
    signatures = SIGNER.sign(b"hi").signatures
    with pytest.raises(MalformedEventError, match="base64"):
        KEYS.open(Envelope(payload=payload, signatures=signatures))


@pytest.mark.parametrize("count", [0, 9])
def test_the_number_of_signatures_is_bounded(count: int) -> None:
    envelope = SIGNER.sign(b"x")
    envelope.signatures *= count
    with pytest.raises(MalformedEventError, match="signatures"):
        KEYS.open(envelope)


class TestKeySets:
    def test_a_set_reads_back_what_it_wrote(self) -> None:
        assert PublicKeys.parse(KEYS.to_json()).ids == [SIGNER.key_id]

    def test_a_pem_is_taken_as_a_set_of_one(self) -> None:
        pem = SIGNER.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        assert PublicKeys.parse(pem).ids == [SIGNER.key_id]

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"[]",
            b"{}",
            b'{"keys": [{}]}',
            b'{"keys": [1]}',
            b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}',
            b"-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----",
        ],
    )
    def test_what_is_no_key_set_says_so(self, data: bytes) -> None:
        with pytest.raises(KeyFormatError):
            PublicKeys.parse(data)

    def test_an_id_that_is_not_the_hash_of_its_key_is_refused(self) -> None:
        with pytest.raises(KeyFormatError, match="altered"):
            PublicKeys.parse(KEYS.to_json().replace(SIGNER.key_id.encode(), b"0" * 32))


class TestKeyFiles:
    def test_the_key_is_made_once_and_only_its_owner_may_read_it(self, tmp_path: Path) -> None:
        first = KeyFiles(tmp_path).signer()
        assert KeyFiles(tmp_path).signer().key_id == first.key_id
        assert stat.S_IMODE((tmp_path / "keys" / PRIVATE_NAME).stat().st_mode) == 0o600
        assert KeyFiles(tmp_path).public().ids == [first.key_id]
        assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == [
            "killswitch.key",
            "killswitch.public.json",
        ]

    def test_a_key_that_others_can_read_is_refused(self, tmp_path: Path) -> None:
        files = KeyFiles(tmp_path)
        files.signer()
        (tmp_path / "keys" / PRIVATE_NAME).chmod(0o640)
        with pytest.raises(KeyFormatError, match="chmod 600"):
            files.signer()

    def test_a_retired_key_stays_published(self, tmp_path: Path) -> None:
        files = KeyFiles(tmp_path)
        old = files.signer()
        (tmp_path / "keys" / PRIVATE_NAME).unlink()
        new = files.signer()
        assert new.key_id != old.key_id
        assert files.public().ids == [new.key_id, old.key_id]

    def test_a_broken_key_is_an_error_and_never_replaced(self, tmp_path: Path) -> None:
        files = KeyFiles(tmp_path)
        files.signer()
        (tmp_path / "keys" / PRIVATE_NAME).write_text("nonsense")
        with pytest.raises(KeyFormatError, match="backup"):
            files.signer()

    def test_a_folder_without_keys_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(KeyFormatError, match="start Cordon once"):
            KeyFiles(tmp_path).public()
