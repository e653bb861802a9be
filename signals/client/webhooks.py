"""The receiver's side of webhooks: is this post from Cordon, and what does it say.

```python
from signals.client.webhooks import verify

event = verify(request.headers, request.body, secret)  # raises WebhookError
if (event.id not in seen) and event.data.decision in ("hold", "kill"):
    stop(event.data.rollout)
```

The form is that of Standard Webhooks (`webhook-id`, `webhook-timestamp`, `webhook-signature`), so any library for it
will do. Delivery is at least once: drop ids that were seen. Invariant: nothing is returned whose signature, time, id or
form was not checked, and with public keys nothing whose Ed25519 signature was not.
"""

import base64
import binascii
import hmac
import time
from collections.abc import Mapping

from ingest.events import UNREADABLE_ERRORS
from ingest.topics import LIVE_LANE
from signals.events import PAYLOAD_TYPE, CloudEvent, Envelope, Signature, event_decoder
from signals.killswitch.signing import PublicKeys, SwitchError
from signals.killswitch.verify import WrongLaneError, open_event

SECRET_PREFIX = "whsec_"  # noqa: S105  # the prefix of every secret, not one
TOLERANCE_SECONDS = 300
BODY_BYTES_MAX = 1 << 20
SIGNATURES_MAX = 8
ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"
DSSE_HEADER = "cordon-dsse-signatures"


class WebhookError(SwitchError):
    """A post can't be believed; the message says why. Answer 4xx and do nothing."""


def signature(key: bytes, event_id: str, at_seconds: int, body: bytes) -> str:
    """Return one signature of Standard Webhooks, `v1,BASE64`: HMAC-SHA256 over id, time and body."""
    signed = b"%s.%d.%s" % (event_id.encode(), at_seconds, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secret: str,
    *,
    keys: PublicKeys | None = None,
    lane: str = LIVE_LANE,
    now_seconds: float | None = None,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> CloudEvent:
    """Return the event of a post after checking that Cordon sent it, lately.

    Args:
        headers: of the request; names in any case.
        body: as it came, byte for byte.
        secret: the subscription's, `whsec_...`.
        keys: check the event's own Ed25519 signature against these as well; None goes by the secret alone.
        lane: the only lane believed.
        now_seconds: the time, seconds since the epoch; the machine's if left out.
        tolerance_seconds: how far the post's time may lie from that.

    Raises:
        WebhookError: something is missing, altered, forged, too old or too new.
        SwitchError: with `keys`, what is wrong with the event's own signature; another lane's event.
    """
    if len(body) > BODY_BYTES_MAX:
        raise WebhookError(f"a post has at most {BODY_BYTES_MAX} bytes")
    given = {name.lower(): value for name, value in headers.items()}
    event_id, at = _required(given, ID_HEADER), _time(_required(given, TIMESTAMP_HEADER))
    now = time.time() if now_seconds is None else now_seconds
    if abs(now - at) > tolerance_seconds:
        raise WebhookError(f"sent {now - at:.0f} s ago by its own word: a replay, or one of the two clocks is wrong")
    wanted = signature(_key(secret), event_id, at, body).encode()
    passed = _required(given, SIGNATURE_HEADER).split()[:SIGNATURES_MAX]
    if not any(hmac.compare_digest(wanted, one.encode()) for one in passed):
        raise WebhookError("no signature is that of this secret: forged, altered, or the secret was rotated")
    event = _event(body)
    if event.id != event_id:
        raise WebhookError(f"{ID_HEADER} is {event_id[:100]!r}, but the body is event {event.id[:100]!r}")
    if keys is not None:
        event = open_event(_envelope(_required(given, DSSE_HEADER), body), keys).event
    if event.data.lane != lane:
        raise WrongLaneError(f"{event.id} is of lane {event.data.lane!r}, not {lane!r}: do not obey it")
    return event


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise WebhookError(f"this is no webhook secret (whsec_ and base64): {error}") from error
    if not key:
        raise WebhookError("the webhook secret is empty: take the one that was shown when the webhook was made")
    return key


def _required(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "")
    if not value:
        raise WebhookError(f"the header {name} is missing: Cordon did not send this, or something on the way took it")
    return value


def _time(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise WebhookError(f"{TIMESTAMP_HEADER} {text[:40]!r} is no time in seconds")
    return int(text)


def _event(body: bytes) -> CloudEvent:
    try:
        return event_decoder.decode(body)
    except UNREADABLE_ERRORS as error:
        raise WebhookError(f"the body is no kill-switch CloudEvent: {error}") from error


def _envelope(text: str, body: bytes) -> Envelope:
    pairs = [pair.partition(":") for pair in text.split(",")]
    return Envelope(
        payload=base64.b64encode(body).decode(),
        payload_type=PAYLOAD_TYPE,
        signatures=[Signature(keyid=keyid, sig=sig) for keyid, _, sig in pairs],
    )
