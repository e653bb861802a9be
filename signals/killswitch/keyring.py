"""The keys as a running process uses them: read again when the files change, the key that signs chosen by the clock.

Made once by the composition root, which also has it look at the files every second; the signer goes to the signals
stage, the public keys to everybody who verifies. Invariants: both stay the same objects for the life of the process;
while one key follows another both sign; and files that can't be used change nothing.
"""

import threading
from collections.abc import Sequence

from ingest.clock import Clock
from signals.events import PAYLOAD_TYPE, Envelope
from signals.killswitch.keys import KeyFiles
from signals.killswitch.signing import KeyTerm, PublicKeys, Signer, envelope_of

_CHANGES_MAX = 64


class RotatingSigner:
    """Signs with every key whose term is now."""

    def __init__(self, keys: Sequence[tuple[Signer, KeyTerm]], clock: Clock) -> None:
        """Take the keys, those that begin first first, and the wall clock."""
        self._keys, self._clock = tuple(keys), clock

    @property
    def key_id(self) -> str:
        """Return the id of the newest key that signs now."""
        return self._active()[-1].key_id

    def sign(self, payload: bytes, payload_type: str = PAYLOAD_TYPE) -> Envelope:
        """Return the payload in an envelope with one signature a key; in an overlap there are two."""
        return envelope_of(self._active(), payload, payload_type)

    def use(self, keys: Sequence[tuple[Signer, KeyTerm]]) -> None:
        """Sign with these from now on; any thread."""
        self._keys = tuple(keys)

    def _active(self) -> list[Signer]:
        now_ms, keys = self._clock.now_ms(), self._keys
        active = [signer for signer, term in keys if term.from_ms <= now_ms and term.covers(now_ms)]
        # A clock that was set back must not leave a process that can't say stop: the oldest that has not ended signs.
        return active or [next((signer for signer, term in keys if term.covers(now_ms)), keys[-1][0])]


class KeyRing:
    """The keys of one process.

    Attributes:
        signer: signs with the keys of now.
        trusted: the published set, whose signatures are believed.
    """

    def __init__(self, files: KeyFiles, clock: Clock) -> None:
        """Read the keys.

        Raises:
            KeyFormatError: they can't be used.
        """
        self._files = files
        # The first call may make the first key, which is no change then.
        files.signers()
        self._stamp = files.stamp()
        self.signer = RotatingSigner(files.signers(), clock)
        self.trusted = files.public()
        self._changes: list[str] = []
        self._lock = threading.Lock()

    def reload_if_changed(self) -> bool:
        """Read the keys again if a file has changed; return whether one had.

        Raises:
            KeyFormatError: they can't be used; everything stays as it was, and the next call tries again.
        """
        stamp = self._files.stamp()
        if stamp == self._stamp:
            return False
        signers, public = self._files.signers(), self._files.public()
        said = changes(self.trusted, public)
        self.trusted.learn(public)
        self.signer.use(signers)
        self._stamp = stamp
        with self._lock:
            self._changes = (self._changes + said)[-_CHANGES_MAX:]
        return True

    def take_changes(self) -> list[str]:
        """Hand over what changed since the last call, a sentence each, for the audit trail; any thread."""
        with self._lock:
            handed, self._changes = self._changes, []
        return handed


def changes(before: PublicKeys, after: PublicKeys) -> list[str]:
    """Return what became of the keys, a sentence each."""
    said = []
    for kid in after.ids:
        term = after.term(kid)
        if kid not in before.ids:
            said.append(f"key {kid} was published" + (f" and signs from {term.from_ms} ms on" if term.from_ms else ""))
        if term.until_ms and term.until_ms != before.term(kid).until_ms:
            said.append(f"key {kid} ends at {term.until_ms} ms: what is decided later is not believed on its word")
    return said + [f"key {kid} was taken off the published set" for kid in before.ids if kid not in after.ids]
