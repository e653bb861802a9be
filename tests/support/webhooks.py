"""Builders that the tests of webhooks share: signed events, subscriptions, and words of what came of a post."""

from detectors.scope import WHOLE, Scope
from detectors.verdict import DecisionWord
from ingest.events import encoder
from ingest.log.interface import Record
from signals.delivery.webhooks.event import PostedEvent, posted_event
from signals.delivery.webhooks.lane import Result
from signals.delivery.webhooks.secret import WebhookKey
from signals.delivery.webhooks.words import AttemptWord, Subscription
from signals.events import Switch, SwitchState
from signals.killswitch.event import cloud_event
from support.switches import ROLLOUT, SIGNER, START_MS

KEY = WebhookKey(bytes(range(32)))
DELIVERED = Result(AttemptWord.DELIVERED, "200")
GONE = Result(AttemptWord.GONE, "410")
REJECTED = Result(AttemptWord.REJECTED, "400")
FAILED = Result(AttemptWord.FAILED, "500")
TIMED_OUT = Result(AttemptWord.TIMED_OUT, "no answer in time")
UNREACHABLE = Result(AttemptWord.UNREACHABLE, "refused")


def subscription(name: str = "wh-1", url: str = "https://receiver.example/hook", **given: object) -> Subscription:
    """Return a subscription to everything, with `given` replaced."""
    return Subscription(**{"id": name, "url": url, "starts": [0], **given})  # type: ignore[arg-type]


def envelope_of(
    rollout: str, number: int, *, previous: str = "", product: str = "crowdstrike/falcon", scope: Scope = WHOLE
) -> tuple[bytes, bytes]:
    """Return a signed event as it lies in the log, and its payload."""
    vendor, name = product.split("/")
    payload = encoder.encode(
        cloud_event(
            Switch(
                rollout=rollout,
                number=number,
                previous_digest=previous,
                lane="live",
                vendor=vendor,
                product=name,
                version="291",
                state=SwitchState.KILLED,
                previous_state=SwitchState.OBSERVING,
                decision=DecisionWord.KILL,
                cause="detector",
                reason="kill_evidence",
                sentence="evidence 10^7.2 >= 10^6 needed to kill",
                watermark_ms=START_MS,
                decided_ms=START_MS,
                scope=scope,
            )
        )
    )
    return encoder.encode(SIGNER.sign(payload)), payload


def record_of(offset: int, rollout: str = ROLLOUT, number: int | None = None, **given: object) -> Record:
    """Return the record of an event at an offset; its number is one more unless given."""
    value, _ = envelope_of(rollout, number or offset + 1, **given)  # type: ignore[arg-type]
    return Record(offset, rollout.encode(), value, START_MS + offset)


def event_of(offset: int, rollout: str = ROLLOUT, **given: object) -> PostedEvent:
    """Return what is posted of that record."""
    event = posted_event(record_of(offset, rollout, **given))  # type: ignore[arg-type]
    assert event is not None
    return event
