"""The secrets that webhooks are signed with: derived, never stored.

One key an installation, `keys/webhook.key`, readable by its owner only. A subscription's secret is HMAC-SHA256 of its
id and version under that key: the log holds none, any deliverer of the installation can make it again, and rotating it
is a number. Invariant: a key file that others can read is refused, not used.
"""

import base64
import hmac
import os
import secrets
import stat
from functools import lru_cache
from pathlib import Path

from signals.client.webhooks import SECRET_PREFIX, signature
from signals.delivery.webhooks.words import Subscription

KEY_NAME = "webhook.key"
KEY_BYTES = 32
SECRETS_CACHED_MAX = 8192
OVERLAP_MS = 86_400_000


class WebhookKeyError(Exception):
    """The installation's webhook key can't be used; the message says what to do."""


class WebhookKey:
    """The installation's key."""

    def __init__(self, key: bytes) -> None:
        """Take the key's bytes."""
        self._key = key
        # Derived anew for every post they were a tenth of its cost.
        self._derived = lru_cache(SECRETS_CACHED_MAX)(self._derive)

    @property
    def fingerprint(self) -> str:
        """Return what processes of one installation compare, without telling the key."""
        return hmac.digest(self._key, b"cordon webhook key fingerprint", "sha256").hex()[:32]

    @classmethod
    def of(cls, data_dir: Path) -> "WebhookKey":
        """Return the key of a data folder; the first call makes it.

        Raises:
            WebhookKeyError: others may read it, or it is none.
        """
        path = data_dir / "keys" / KEY_NAME
        if not path.exists():
            _create(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise WebhookKeyError(
                f"others may read {path} (mode {mode:o}): whoever has it forges webhooks. chmod 600 it"
            )
        try:
            key = bytes.fromhex(path.read_text().strip())
        except (OSError, ValueError) as error:
            raise WebhookKeyError(f"{path} can't be read: {error}. Restore it from a backup") from error
        if len(key) != KEY_BYTES:
            raise WebhookKeyError(f"{path} holds {len(key)} bytes, not {KEY_BYTES}: restore it from a backup")
        return cls(key)

    def derived(self, purpose: str) -> bytes:
        """Return 32 bytes for another purpose of the installation, of which nothing of this key can be told."""
        return hmac.digest(self._key, f"cordon installation {purpose}".encode(), "sha256")

    def secret(self, subscription: str, version: int) -> str:
        """Return a subscription's secret of one version, in the form of Standard Webhooks."""
        return SECRET_PREFIX + base64.b64encode(self._derived(subscription, version)).decode()

    def signatures(self, subscription: Subscription, event_id: str, at_ms: int, body: bytes) -> str:
        """Return `webhook-signature`: by the secret, and for a day after a rotation by the one before as well."""
        versions = [subscription.version]
        if subscription.version > 1 and at_ms < subscription.rotated_ms + OVERLAP_MS:
            versions.append(subscription.version - 1)
        return " ".join(
            signature(self._derived(subscription.id, version), event_id, at_ms // 1000, body) for version in versions
        )

    def _derive(self, subscription: str, version: int) -> bytes:
        return hmac.digest(self._key, f"cordon webhook {subscription} {version}".encode(), "sha256")


def _create(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link fails where a rename would replace: of two processes that start at once, the first one's key stays.
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
