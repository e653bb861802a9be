"""The signing key on disk and the published key set.

The private key lies in the data folder, readable by its owner only; the public ones beside it, where retired keys stay
listed so that old events can still be verified. Invariant: a key file that others can read is refused, not used.
"""

import os
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from signals.killswitch.signing import KeyFormatError, PublicKeys, Signer

PRIVATE_NAME = "killswitch.key"
PUBLIC_NAME = "killswitch.public.json"


class KeyFiles:
    """The key files of one installation, in `data_dir/keys`."""

    def __init__(self, data_dir: Path) -> None:
        """Take the installation's data folder; nothing is read yet."""
        self._folder = data_dir / "keys"

    @property
    def public_path(self) -> Path:
        """Return where the public key set lies."""
        return self._folder / PUBLIC_NAME

    def signer(self) -> Signer:
        """Return the installation's signer; the first call makes its key.

        Raises:
            KeyFormatError: the key file is no Ed25519 key, or others may read it.
        """
        path = self._folder / PRIVATE_NAME
        if not path.exists():
            self._create(path)
        signer = _read_private(path)
        self._publish(signer)
        return signer

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

    def _create(self, path: Path) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        fresh = _write_beside(path, pem, 0o600)
        try:
            # A link fails where a rename would replace: of two processes that start at once, the first one's key stays.
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()

    def _publish(self, signer: Signer) -> None:
        keys = [signer.public]
        if self.public_path.exists():
            known = self.public()
            if signer.key_id in known.ids:
                return
            keys += known.keys()
        _write_beside(self.public_path, PublicKeys(keys).to_json(), 0o644).replace(self.public_path)


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
