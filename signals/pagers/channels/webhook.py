"""A plain POST of JSON, signed in the form of Standard Webhooks.

The receiver checks it with `signals.client.webhooks` or any library of that form. Invariant: the same message has the
same `webhook-id`, so a receiver that was told twice can tell. Addresses are not restricted as those of subscriptions
are: the registry is a file of whoever runs Cordon, not something a client may post.
"""

import base64
import time
from collections.abc import Callable
from typing import Any, Final

import httpx2
import msgspec

from ingest.events import encoder
from signals.client.webhooks import SECRET_PREFIX, signature
from signals.pagers.channels.interface import Answer, Message
from signals.pagers.channels.posting import Poster
from signals.pagers.words import ChannelKind

EVENT_TYPE: Final = "io.cordon.page.v1"
KEY_BYTES_LEAST: Final = 24


def payload(message: Message) -> dict[str, Any]:
    """Return the body of a post."""
    return {
        "type": EVENT_TYPE,
        "key": message.key,
        "step": message.step.value,
        "level": message.level.value,
        "headline": message.headline,
        "lines": message.lines,
        "links": [{"text": text, "href": href} for text, href in message.links],
        "page": msgspec.to_builtins(message.page),
    }


class WebhookChannel:
    """Posts to one address."""

    kind: Final = ChannelKind.WEBHOOK

    def __init__(
        self,
        url: str,
        secret: str,
        transport: httpx2.BaseTransport | None = None,
        now_seconds: Callable[[], float] = time.time,
    ) -> None:
        """Take the address and the signing secret, `whsec_` and base64.

        Raises:
            ValueError: the secret is none.
        """
        self._url, self._key, self._now = url, _key(secret), now_seconds
        self._poster = Poster({}, transport)

    def send(self, message: Message) -> Answer:
        """Post once."""
        body = encoder.encode(payload(message))
        said = f"{message.key}/{message.sequence}"
        at = int(self._now())
        headers = {
            "webhook-id": said,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(self._key, said, at, body),
        }
        return self._poster.post_bytes(self._url, body, headers)

    def close(self) -> None:
        """Close the connection."""
        self._poster.close()


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if len(key) < KEY_BYTES_LEAST or not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"a signing secret is {SECRET_PREFIX} and the base64 of {KEY_BYTES_LEAST} bytes or more")
    return key
