"""The wire types of webhooks: who subscribed to what, and how far each was served.

`Subscription` lies on `cordon.subscriptions.v1` and is written by the listener; `DeliveryPlace` and `DeadDelivery` lie
on `cordon.deliveries.v1` and are written by the one deliverer of a partition, under a fence. Invariant: no record holds
a secret; a subscription's secret is derived from the installation's key, its id and its version.
"""

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from detectors.scope import WHOLE, Scope
from signals.delivery.wanted import Drills

URL_CHARACTERS_MAX = 2048
ROLLOUTS_MAX = 64
REDELIVERIES_MAX = 16


class Disabled(enum.StrEnum):
    """Why Cordon stopped serving a subscription by itself; empty while it is served."""

    NO = ""
    GONE = "gone"
    DEAD_LETTERS_FULL = "dead_letters_full"


class AttemptWord(enum.StrEnum):
    """How one delivery attempt ended."""

    DELIVERED = "delivered"
    GONE = "gone"
    REJECTED = "rejected"
    BUSY = "busy"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    UNREACHABLE = "unreachable"
    REFUSED_TARGET = "refused_target"


ATTEMPT_DOCS: dict[AttemptWord, str] = {
    AttemptWord.DELIVERED: "The receiver answered 2xx: it has the event.",
    AttemptWord.GONE: "It answered 410: the subscription is disabled until somebody enables it.",
    AttemptWord.REJECTED: "It answered 3xx or 4xx: a dead letter after five tries. Redirects are not followed.",
    AttemptWord.BUSY: "It answered 429, or 503 with Retry-After: the whole subscription waits as long as asked.",
    AttemptWord.FAILED: "It answered 5xx, 408 or 425: tried again for `webhook_retry_seconds`.",
    AttemptWord.TIMED_OUT: "It had not answered within `webhook_timeout_seconds`: tried again as long.",
    AttemptWord.UNREACHABLE: "No connection, or it broke: tried again as long.",
    AttemptWord.REFUSED_TARGET: (
        "Its name leads to an address that webhooks may not go to, unless `webhook_private_targets` lists it: tried "
        "again as long, never connected to."
    ),
}


class Redelivery(msgspec.Struct, kw_only=True, frozen=True):
    """That somebody asked for dead letters to be delivered again.

    Attributes:
        serial: grows with every request of a subscription, so that each is obeyed once.
        event_id: of the one that is meant; empty for all.
    """

    serial: int
    event_id: str = ""


class Subscription(msgspec.Struct, kw_only=True, frozen=True):
    """One record of `cordon.subscriptions.v1`: where events are posted, and which.

    Attributes:
        id: names it, and derives its secret.
        url: where events are posted.
        note: what it is for, for people.
        rollouts: ids of the rollouts wanted; empty: all.
        products: `vendor/product` of the rollouts wanted; empty: all.
        scope: the part of a fleet that is meant: moves of other parts are left out.
        drills: whether events of drills are sent.
        enabled: false while somebody has paused it; what it missed is sent once it is enabled.
        version: of its secret; grows when the secret is rotated.
        rotated_ms: when the secret was last rotated; the one before signs too for a day from then on.
        revision: grows with every change, so that whoever disabled it can tell whether somebody has looked since.
        starts: the first offset that is for it, by keyed partition.
        start_revision: the revision that `starts` was set in.
        redeliveries: the latest requests to deliver dead letters again.
        created_by: the name of the token that made it.
        created_ms: when, by the listener's clock.
    """

    schema: int = 1
    id: Annotated[str, Meta(min_length=1, max_length=64)]
    url: Annotated[str, Meta(min_length=1, max_length=URL_CHARACTERS_MAX)]
    note: Annotated[str, Meta(max_length=256)] = ""
    rollouts: Annotated[list[str], Meta(max_length=ROLLOUTS_MAX)] = []
    products: Annotated[list[str], Meta(max_length=ROLLOUTS_MAX)] = []
    scope: Scope = WHOLE
    drills: Drills = Drills.NONE
    enabled: bool = True
    version: int = 1
    rotated_ms: int = 0
    revision: int = 1
    starts: list[int] = []
    start_revision: int = 1
    redeliveries: Annotated[list[Redelivery], Meta(max_length=REDELIVERIES_MAX)] = []
    created_by: str = ""
    created_ms: int = 0


class DeliveryPlace(msgspec.Struct, kw_only=True, frozen=True):
    """One record of `cordon.deliveries.v1`: how far one subscription was served with one partition's events.

    Attributes:
        subscription: whose place it is.
        partition: of the kill-switch topic.
        position: every event before this offset is settled, but for those in `waiting`.
        waiting: offsets before `position` that are still to be delivered.
        revision: of the subscription that this was written under.
        disabled: why it is no longer served, if Cordon stopped by itself under that revision.
        redelivered: serial of the last request for redelivery that was obeyed.
        delivered: how many events were delivered over its life.
        oldest_ms: when the oldest event still to be delivered was appended; 0: there is none.
        last: how the last attempt ended, with the receiver's words.
    """

    schema: int = 1
    subscription: str
    partition: int
    position: int
    waiting: list[int] = []
    revision: int = 1
    disabled: Disabled = Disabled.NO
    redelivered: int = 0
    delivered: int = 0
    oldest_ms: int = 0
    last: str = ""


class DeadDelivery(msgspec.Struct, kw_only=True, frozen=True):
    """The other record of `cordon.deliveries.v1`: an event that a subscriber would not take.

    Attributes:
        subscription: whose it is.
        partition: of the kill-switch topic, where the event still lies.
        offset: where in it.
        event_id: the event's id.
        word: how the last attempt ended.
        detail: the receiver's words.
        tries: how many attempts were made since Cordon last started.
        at_ms: when it was given up.
    """

    schema: int = 1
    subscription: str
    partition: int
    offset: int
    event_id: str
    word: AttemptWord
    detail: str
    tries: int
    at_ms: int


subscription_decoder = msgspec.json.Decoder(Subscription)
place_decoder = msgspec.json.Decoder(DeliveryPlace)
dead_decoder = msgspec.json.Decoder(DeadDelivery)


def place_key(subscription: str, partition: int) -> bytes:
    """Return the key of a place."""
    return f"{subscription}/{partition}".encode()


def dead_key(subscription: str, partition: int, offset: int) -> bytes:
    """Return the key of a dead letter."""
    return f"{subscription}/{partition}/{offset}".encode()


def is_dead_key(key: bytes) -> bool:
    """Tell a dead letter's key from a place's."""
    return key.count(b"/") == 2
