"""Keys that follow one another: published before they sign, both sign for a while, and the old one ends."""

from pathlib import Path

import pytest

from ingest.clock import DrivenClock
from signals.killswitch.keyring import KeyRing
from signals.killswitch.keys import PUBLISH_SECONDS, KeyFiles, KeyRotationError
from signals.killswitch.signing import KeyFormatError, KeyTerm, PublicKeys, RetiredKeyError, UnknownKeyError
from support.switches import START_MS

HOUR = 3600.0


class Keys:
    """An installation's key files with a process that uses them, by a clock that a test drives."""

    def __init__(self, folder: Path) -> None:
        self.clock = DrivenClock(START_MS)
        self.files = KeyFiles(folder, self.clock)
        self.ring = KeyRing(self.files, self.clock)

    def later(self, seconds: float) -> None:
        self.clock.drive_to(self.clock.now_ms() + int(seconds * 1000))

    def signed_by(self) -> list[str]:
        return [one.keyid for one in self.ring.signer.sign(b"{}").signatures]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def test_the_next_key_is_published_then_both_sign_then_the_old_one_ends(keys: Keys) -> None:
    [old] = keys.signed_by()
    new, term = keys.files.rotate(HOUR)
    assert keys.ring.reload_if_changed()
    assert not keys.ring.reload_if_changed()
    assert keys.ring.trusted.ids == [new, old]
    assert keys.signed_by() == [old]
    keys.later(PUBLISH_SECONDS)
    assert keys.signed_by() == [old, new]
    assert term == KeyTerm(from_ms=START_MS + PUBLISH_SECONDS * 1000)
    keys.later(HOUR)
    assert keys.signed_by() == [new]
    assert keys.ring.signer.key_id == new


def test_subscribers_with_the_old_key_set_believe_to_the_end_of_the_overlap(keys: Keys) -> None:
    old_set = PublicKeys.parse(keys.files.public().to_json())
    keys.files.rotate(HOUR)
    keys.ring.reload_if_changed()
    keys.later(HOUR - 1)
    assert old_set.open(keys.ring.signer.sign(b"{}")) == b"{}"
    keys.later(1)
    with pytest.raises(UnknownKeyError):
        old_set.open(keys.ring.signer.sign(b"{}"))


def test_what_was_decided_after_a_key_ended_is_not_believed_on_its_word(keys: Keys) -> None:
    old = keys.ring.signer.key_id
    keys.files.rotate(HOUR)
    public = PublicKeys.parse(keys.files.public().to_json())
    end_ms = START_MS + int(HOUR * 1000)
    public.require_term([old], end_ms - 1, "event")
    with pytest.raises(RetiredKeyError, match="was retired"):
        public.require_term([old], end_ms, "event")


def test_a_restart_in_the_overlap_finds_both_keys(keys: Keys, tmp_path: Path) -> None:
    keys.files.rotate(HOUR)
    keys.later(PUBLISH_SECONDS)
    assert len(KeyRing(KeyFiles(tmp_path, keys.clock), keys.clock).signer.sign(b"{}").signatures) == 2


def test_a_key_is_retired_once_another_signs_and_its_private_half_is_gone(keys: Keys) -> None:
    old = keys.ring.signer.key_id
    with pytest.raises(KeyRotationError, match="rotate"):
        keys.files.retire(old)
    new, _ = keys.files.rotate(HOUR)
    with pytest.raises(KeyRotationError, match="no other key"):
        keys.files.retire(old)
    keys.later(PUBLISH_SECONDS)
    keys.files.retire(old[:8])
    assert keys.ring.reload_if_changed()
    assert keys.signed_by() == [new]
    assert keys.files.public().ids == [new, old]
    with pytest.raises(KeyRotationError, match="retired already"):
        keys.files.retire(old)


def test_two_rotations_at_once_and_too_short_an_overlap_are_refused(keys: Keys) -> None:
    with pytest.raises(KeyRotationError, match="at least 60 s"):
        keys.files.rotate(59)
    keys.files.rotate(HOUR)
    with pytest.raises(KeyRotationError, match="under way"):
        keys.files.rotate(HOUR)
    keys.later(HOUR)
    keys.files.rotate(HOUR)


@pytest.mark.parametrize("key", ["", "0" * 32])
def test_an_unknown_key_is_not_retired(keys: Keys, key: str) -> None:
    with pytest.raises(KeyRotationError, match="0 keys begin"):
        keys.files.retire(key)


def test_broken_files_change_nothing_and_are_tried_again(keys: Keys) -> None:
    good = keys.files.public_path.read_bytes()
    before = keys.signed_by()
    keys.files.public_path.write_text("nonsense")
    for _ in range(2):
        with pytest.raises(KeyFormatError):
            keys.ring.reload_if_changed()
    assert keys.signed_by() == before
    keys.files.public_path.write_bytes(good)
    keys.ring.reload_if_changed()


def test_every_change_is_told_once_for_the_trail(keys: Keys) -> None:
    old = keys.ring.signer.key_id
    assert keys.ring.take_changes() == []
    new, _ = keys.files.rotate(HOUR)
    keys.ring.reload_if_changed()
    told = keys.ring.take_changes()
    assert [sentence.split(" ")[1] for sentence in told] == [new, old]
    assert keys.ring.take_changes() == []


def test_a_clock_set_back_leaves_a_key_that_signs(keys: Keys, tmp_path: Path) -> None:
    keys.files.rotate(HOUR)
    keys.later(HOUR)
    signers = keys.files.signers()
    early = KeyRing(KeyFiles(tmp_path, keys.clock), DrivenClock(START_MS - 1))
    assert early.signer.sign(b"{}").signatures
    assert len(signers) == 2


def test_the_set_says_terms_as_web_tokens_do(keys: Keys) -> None:
    keys.files.rotate(HOUR)
    public = keys.files.public()
    text = public.to_json().decode()
    assert f'"exp":{(START_MS + HOUR * 1000) / 1000}' in text
    assert f'"nbf":{(START_MS + PUBLISH_SECONDS * 1000) / 1000}' in text
    assert PublicKeys.parse(text.encode()).terms() == public.terms()
