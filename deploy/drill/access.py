"""What a drill needs to get at a Cordon: addresses, a token of its own, and the keys whose signatures it believes."""

import os
from dataclasses import dataclass
from pathlib import Path

import httpx2

from deploy.drill.errors import DrillError
from detectors.drill import TENANTS
from ingest.gateway.tenants import TokenBook, TokenBookError
from signals.client import PublicKeys
from signals.killswitch.signing import KeyFormatError

NAME = "drill"
# It may post for the drill's own tenants and for nobody else; declaring and reading the stream need `rollout`.
TOKEN_ROLES = ("report", "rollout")
_HTTP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Access:
    """How to get at one Cordon.

    Attributes:
        gateway: URL of the reports listener.
        streams: URL of the listener for verdicts and event streams.
        token: speaks for the drill's tenants, with the roles `report` and `rollout`.
        keys: whose signatures are believed.
    """

    gateway: str
    streams: str
    token: str
    keys: PublicKeys


def token_in(data_dir: Path, book: TokenBook) -> str:
    """Return the drill's token of an installation; the first call makes it, in `drill.token`.

    Args:
        data_dir: the installation's data folder.
        book: its tokens.

    Raises:
        DrillError: the token can't be read or made; the message says what to do.
    """
    path = data_dir / f"{NAME}.token"
    try:
        if path.exists():
            token = path.read_text().strip()
            if book.authenticate(f"Bearer {token}") is not None:
                return token
            raise DrillError(f"{path} holds a token that is not in tokens.toml: remove the file to have one made anew")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            token = book.add(NAME, TENANTS, TOKEN_ROLES)
        except TokenBookError as error:
            path.unlink()
            raise DrillError(f"cannot make a token for drills: {error}") from error
        finally:
            os.close(handle)
        path.write_text(token + "\n")
    except OSError as error:
        raise DrillError(f"cannot keep the drill's token in {path}: {error.strerror}") from error
    return token


def fetched_keys(streams: str) -> PublicKeys:
    """Return the public keys that this Cordon publishes itself.

    Raises:
        DrillError: there is no Cordon, or it gave no keys.
    """
    try:
        answer = httpx2.get(f"{streams.rstrip('/')}/v1/keys", timeout=_HTTP_SECONDS, trust_env=False)
        answer.raise_for_status()
        return PublicKeys.parse(answer.content)
    except (httpx2.HTTPError, httpx2.InvalidURL, KeyFormatError) as error:
        raise DrillError(f"no keys from {streams}: {error}. Is Cordon up there? Else give them with --keys") from error
