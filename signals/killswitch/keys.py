"""The signing keys on disk and the published key set: making, rotating, retiring.

Private keys lie in the data folder, readable by their owner only; the public ones beside them, each with its term,
where retired keys stay listed so that old events can still be verified. Invariants: a key file that others can read is
refused, not used; a key is published before it signs; and there is always a key that signs.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from ingest.clock import Clock, WallClock
from signals.killswitch.signing import KeyFormatError, KeyTerm, PublicKeys, Signer

PRIVATE_NAME = "killswitch.key"
PUBLIC_NAME = "killswitch.public.json"
# A new key is published for so long before it signs: running processes look every second.
PUBLISH_SECONDS = 10
OVERLAP_SECONDS_LEAST = 60


class KeyRotationError(Exception):
    """The keys can't be changed like that; the message says what to do."""


class KeyFiles:
    """The key files of one installation, in `data_dir/keys`."""

    def __init__(self, data_dir: Path, clock: Clock | None = None) -> None:
        """Take the installation's data folder and the wall clock; nothing is read yet."""
        self._folder = data_dir / "keys"
        self._clock = clock or WallClock()

    @property
    def public_path(self) -> Path:
        """Return where the public key set lies."""
        return self._folder / PUBLIC_NAME

    def signers(self) -> list[tuple[Signer, KeyTerm]]:
        """Return the private keys with their terms, those that begin first first; the first call makes a key.

        Raises:
            KeyFormatError: a key file is no Ed25519 key, others may read it, or no key is left that signs.
        """
        if not self._private_paths():
            self._create(self._folder / PRIVATE_NAME)
        signers = [_read_private(path) for path in self._private_paths()]
        self._publish(signers)
        public = self.public()
        found = [(signer, public.term(signer.key_id)) for signer in signers]
        if not any(term.covers(self._clock.now_ms()) for _, term in found):
            raise KeyFormatError(
                f"every private key in {self._folder} is retired: nothing can be signed. Run `cordon keys rotate`"
            )
        return sorted(found, key=lambda pair: pair[1].from_ms)

    def signer(self) -> Signer:
        """Return the key that signs longest from now on, see `signers`; a process that runs takes a `KeyRing`."""
        return self.signers()[-1][0]

    def public(self) -> PublicKeys:
        """Return the published key set.

        Raises:
            KeyFormatError: there is none yet, or it can't be read.
        """
        try:
            return PublicKeys.parse(self.public_path.read_bytes())
        except OSError as error:
            raise KeyFormatError(
                f"no key set in {self.public_path} ({error.strerror}): start Cordon once with this data folder"
            ) from error

    def rotate(self, overlap_seconds: float) -> tuple[str, KeyTerm]:
        """Make the next key, publish it, and let the ones before it end after the overlap, in which both sign.

        Args:
            overlap_seconds: time for subscribers to get the new key set, and for processes to get the new key.

        Returns:
            The new key's id and term.

        Raises:
            KeyRotationError: the overlap is too short, a rotation is under way, or there is no key that could end.
            KeyFormatError: the keys can't be read.
        """
        if overlap_seconds < OVERLAP_SECONDS_LEAST:
            raise KeyRotationError(
                f"the overlap is at least {OVERLAP_SECONDS_LEAST} s: subscribers need the new key set"
            )
        if not self._private_paths():
            # A typo in the folder's name must not make keys that nobody signs with.
            raise KeyRotationError(
                f"{self._folder} holds no key: name the data folder of a Cordon that was started once"
            )
        now_ms, signers, public = self._clock.now_ms(), self.signers(), self.public()
        ending = [signer.key_id for signer, term in signers if term.until_ms > now_ms]
        if ending:
            raise KeyRotationError(
                f"a rotation is under way: key {ending[0]} still signs beside the next one. Wait for its end, or "
                f"`cordon keys retire {ending[0]}`"
            )
        fresh = Ed25519PrivateKey.generate()
        signer = Signer(fresh)
        terms = public.terms()
        for old, term in signers:
            if not term.until_ms:
                terms[old.key_id] = KeyTerm(from_ms=term.from_ms, until_ms=now_ms + int(overlap_seconds * 1000))
        terms[signer.key_id] = KeyTerm(from_ms=now_ms + PUBLISH_SECONDS * 1000)
        # First the private key: a set that names a key which nobody has would end in a time when nothing signs.
        self._create(self._folder / f"killswitch-{signer.key_id}.key", fresh)
        self._replace_public([signer.public, *public.keys()], terms)
        return signer.key_id, terms[signer.key_id]

    def retire(self, key: str) -> KeyTerm:
        """End a key now, and remove its private half; it stays published with its end.

        Args:
            key: the key's id, or the beginning of it that only it has.

        Raises:
            KeyRotationError: no such key, it is retired, or no other key signs by now.
            KeyFormatError: the keys can't be read.
        """
        now_ms, public = self._clock.now_ms(), self.public()
        found = [kid for kid in public.ids if key and kid.startswith(key)]
        if len(found) != 1:
            raise KeyRotationError(f"{len(found)} keys begin with {key!r}: `cordon keys list` has their ids")
        kid, terms = found[0], public.terms()
        if not terms[kid].covers(now_ms):
            raise KeyRotationError(f"key {kid} is retired already")
        others = [signer for signer, term in self.signers() if signer.key_id != kid and _signs(term, now_ms)]
        if not others:
            raise KeyRotationError(
                f"no other key than {kid} signs by now: `cordon keys rotate` first, and wait {PUBLISH_SECONDS} s"
            )
        terms[kid] = KeyTerm(from_ms=terms[kid].from_ms, until_ms=now_ms)
        self._replace_public(public.keys(), terms)
        for path in self._private_paths():
            if _read_private(path).key_id == kid:
                path.unlink()
        return terms[kid]

    def stamp(self) -> tuple[tuple[str, int, int, int], ...]:
        """Return what changes when a key file does; for whoever looks whether to read them again."""
        found = []
        for path in [*self._private_paths(), self.public_path]:
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((path.name, status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)

    def _private_paths(self) -> list[Path]:
        return sorted(self._folder.glob("killswitch*.key"))

    def _create(self, path: Path, private: Ed25519PrivateKey | None = None) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = private or Ed25519PrivateKey.generate()
        fresh = _write_beside(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        try:
            # A link fails where a rename would replace: of two processes that start at once, the first one's key stays.
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()

    def _publish(self, signers: Iterable[Signer]) -> None:
        known = self.public() if self.public_path.exists() else PublicKeys([])
        missing = [signer.public for signer in signers if signer.key_id not in known.ids]
        if missing:
            self._replace_public([*missing, *known.keys()], known.terms())

    def _replace_public(self, keys: Iterable[Ed25519PublicKey], terms: dict[str, KeyTerm]) -> None:
        data = PublicKeys(keys, terms).to_json()
        _write_beside(self.public_path, data, 0o644).replace(self.public_path)


def _signs(term: KeyTerm, now_ms: int) -> bool:
    return term.from_ms <= now_ms and term.covers(now_ms)


def _read_private(path: Path) -> Signer:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise KeyFormatError(f"others may read {path} (mode {mode:o}): whoever has it can stop rollouts. chmod 600 it")
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise KeyFormatError(f"{path} holds no private key: {error}. Restore it from a backup") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFormatError(f"the key in {path} is not Ed25519: remove it to have one made")
    return Signer(private)


def _write_beside(path: Path, data: bytes, mode: int) -> Path:
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return fresh
