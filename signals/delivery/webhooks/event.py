"""One kill-switch event as it is posted, made once and shared by every subscription.

Between a record of `cordon.killswitch.v1` and the queues. Invariant: the body is the CloudEvent's JSON byte for byte as
it was signed, so that a receiver can check the Ed25519 signature on it as well.
"""

import base64
import binascii
from dataclasses import dataclass

import msgspec

from detectors.drill import is_drill
from detectors.scope import WHOLE, Scope
from ingest.events import UNREADABLE_ERRORS
from ingest.log.interface import Record
from signals.delivery.wanted import Drills
from signals.delivery.webhooks.words import Subscription
from signals.events import envelope_decoder


class _Said(msgspec.Struct):
    rollout: str
    vendor: str
    product: str
    scope: Scope = WHOLE
    drill: bool = False


class _Event(msgspec.Struct):
    id: str
    data: _Said


_decoder = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class PostedEvent:
    """What is posted, and what a subscription chooses by.

    Attributes:
        offset: where the event lies in its partition.
        appended_at_ms: since when it is known.
        event_id: the CloudEvent's id, sent as `webhook-id`.
        rollout: whose events come in order.
        product: `vendor/product`.
        scope: the part of the rollout that moved.
        drill: it is of a drill.
        body: the signed payload.
        signatures: of the DSSE envelope, `KEYID:BASE64`, with commas between.
    """

    offset: int
    appended_at_ms: int
    event_id: str
    rollout: str
    product: str
    scope: Scope
    drill: bool
    body: bytes
    signatures: str


def posted_event(record: Record) -> PostedEvent | None:
    """Return the event of a record; None for what is no signed CloudEvent, of which there is nothing to post."""
    if record.value is None:
        return None
    try:
        envelope = envelope_decoder.decode(record.value)
        body = base64.b64decode(envelope.payload, validate=True)
        event = _decoder.decode(body)
    except (*UNREADABLE_ERRORS, binascii.Error, ValueError):
        return None
    said = event.data
    return PostedEvent(
        offset=record.offset,
        appended_at_ms=record.appended_at_ms,
        event_id=event.id,
        rollout=said.rollout,
        product=f"{said.vendor}/{said.product}",
        scope=said.scope,
        drill=said.drill or is_drill(said.vendor, said.product),
        body=body,
        signatures=",".join(f"{signature.keyid}:{signature.sig}" for signature in envelope.signatures),
    )


def wants(subscription: Subscription, event: PostedEvent) -> bool:
    """Tell whether the event is for the subscription."""
    if event.drill is not (subscription.drills is Drills.ONLY) and subscription.drills is not Drills.INCLUDE:
        return False
    return (
        (not subscription.rollouts or event.rollout in subscription.rollouts)
        and (not subscription.products or event.product in subscription.products)
        and event.scope.covers(subscription.scope)
    )
