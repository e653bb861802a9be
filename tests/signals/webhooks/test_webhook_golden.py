"""Golden bytes of the records of webhooks: what is written, and that it is read as what it says."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from detectors.scope import Scope
from ingest.events import encoder
from signals.delivery.wanted import Drills
from signals.delivery.webhooks.words import (
    AttemptWord,
    DeadDelivery,
    DeliveryPlace,
    Redelivery,
    Subscription,
    dead_decoder,
    place_decoder,
    subscription_decoder,
)
from support.switches import ROLLOUT, START_MS

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
VALUES: dict[str, tuple[Any, "msgspec.json.Decoder[Any]"]] = {
    "subscription": (
        Subscription(
            id="wh-0123456789abcdef",
            url="https://receiver.example/cordon",
            note="deployment system",
            rollouts=[ROLLOUT],
            products=["crowdstrike/falcon-content"],
            scope=Scope(os_build="22631"),
            drills=Drills.INCLUDE,
            version=2,
            rotated_ms=START_MS,
            revision=3,
            starts=[12],
            redeliveries=[Redelivery(serial=1, event_id=f"{ROLLOUT}/1")],
            created_by="operator",
            created_ms=START_MS,
        ),
        subscription_decoder,
    ),
    "delivery_place": (
        DeliveryPlace(
            subscription="wh-0123456789abcdef",
            partition=0,
            position=14,
            waiting=[12],
            revision=3,
            redelivered=1,
            delivered=9,
            oldest_ms=START_MS,
            last="failed: 500",
        ),
        place_decoder,
    ),
    "dead_delivery": (
        DeadDelivery(
            subscription="wh-0123456789abcdef",
            partition=0,
            offset=11,
            event_id=f"{ROLLOUT}/1",
            word=AttemptWord.REJECTED,
            detail="400 'no such rollout here'",
            tries=5,
            at_ms=START_MS,
        ),
        dead_decoder,
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_the_bytes_written_are_the_golden_ones_and_are_read_back(name: str) -> None:
    value, decoder = VALUES[name]
    golden = (GOLDEN / f"{name}.json").read_bytes().strip()
    assert encoder.encode(value) == golden
    assert decoder.decode(golden) == value
