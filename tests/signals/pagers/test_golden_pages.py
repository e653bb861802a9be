"""The bytes of version 1 of paging on the wire: written as they were, and read as they were."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from detectors.stacks import Stack
from ingest.events import encoder
from signals.pagers.records import (
    Delivery,
    Incident,
    Mute,
    Page,
    PageAttempt,
    PageCase,
    PageOrder,
    PagePlace,
    Task,
    dedup_key,
)
from signals.pagers.words import Answered, Level, OrderAction, Role, Step

GOLDEN = Path(__file__).parents[2] / "golden" / "v1"
PAGE = Page(
    level=Level.CRITICAL,
    rollout="r-0123456789abcdef",
    vendor="crowdstrike",
    product="falcon-content",
    version="291",
    state="killed",
    decision="kill",
    reason="kill_evidence",
    number=3,
    decided_ms=1_721_362_200_000,
    ring="canary",
    exposed=180,
    crashes_exposed=11,
    crashes_control=1,
    at_risk_exposed=169,
    at_risk_control=84_000,
    tenants=4,
    rate_ratio=310.5,
    rate_low=44.1,
    rate_high=4100.0,
    first_crash_ms=1_721_362_170_000,
    signatures=[("csagent.sys|0x50", 10), ("ntfs.sys|0x24", 1)],
    stacks=[
        Stack(
            signature="csagent.sys|0x50",
            frames=["csagent.sys+0xe14ed", "csagent.sys+0xb5d9e"],
            devices=9,
            tenants=4,
            exact=False,
        )
    ],
)
TASK = Task(sequence=2, step=Step.TRIGGER, level=Level.CRITICAL, episode=1, since_ms=1_721_362_200_100, page=PAGE)
WIRE: dict[str, Any] = {
    "page_case": PageCase(
        rollout=PAGE.rollout,
        vendor="crowdstrike",
        product="falcon-content",
        version="291",
        number=3,
        level=Level.CRITICAL,
        incidents=[
            Incident(
                owner="crowdstrike",
                role=Role.OWNER,
                level=Level.CRITICAL,
                target=Level.CRITICAL,
                target_ms=1_721_362_200_100,
                page=PAGE,
                deliveries=[
                    Delivery(
                        route="falcon-pager",
                        tasks=[TASK],
                        sequence=2,
                        episode=1,
                        asked=True,
                        level=Level.CRITICAL,
                        told_ms=1_721_362_200_100,
                        told=PAGE,
                        number=3,
                    )
                ],
            )
        ],
        rings=["canary"],
        touched_ms=1_721_362_200_100,
        offsets={"killswitch/0": 3, "verdicts/0": 40},
    ),
    "page_place": PagePlace(
        offsets={"pageorders/0": 1},
        began_ms=1_721_300_000_000,
        mutes=[Mute(order_id="o-1", vendor="acme", until_ms=1_721_365_000_000, name="Ada Lovelace", reason="lab test")],
        orders=[("o-1", "applied")],
    ),
    "page_attempt": PageAttempt(
        rollout=PAGE.rollout,
        owner="crowdstrike",
        route="falcon-pager",
        channel="pagerduty",
        key=dedup_key(PAGE.rollout, "crowdstrike", TASK),
        step=Step.TRIGGER,
        level=Level.CRITICAL,
        sequence=2,
        episode=1,
        attempt=1,
        at_ms=1_721_362_200_400,
        seconds=0.25,
        answered=Answered.DELIVERED,
        status=202,
        answer="accepted",
        headline="KILLED: falcon-content 291",
    ),
    "page_order": PageOrder(
        order_id="o-1",
        action=OrderAction.MUTE,
        name="Ada Lovelace",
        reason="lab test",
        at_ms=1_721_361_000_000,
        vendor="acme",
        until_ms=1_721_365_000_000,
    ),
}


@pytest.mark.parametrize("name", WIRE)
def test_the_bytes_written_are_the_golden_ones(name: str) -> None:
    assert encoder.encode(WIRE[name]) + b"\n" == (GOLDEN / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", WIRE)
def test_the_golden_bytes_are_read_as_what_they_say(name: str) -> None:
    assert msgspec.json.decode((GOLDEN / f"{name}.json").read_bytes(), type=type(WIRE[name])) == WIRE[name]


def test_a_case_from_before_frames_is_read() -> None:
    """The release before wrote pages without stacks: what was under way goes on, and tells of none."""
    read = msgspec.json.decode((GOLDEN / "before_frames" / "page_case.json").read_bytes(), type=PageCase)
    page = msgspec.structs.replace(PAGE, stacks=[])
    (incident,) = WIRE["page_case"].incidents
    (delivery,) = incident.deliveries
    delivery = msgspec.structs.replace(delivery, told=page, tasks=[msgspec.structs.replace(TASK, page=page)])
    incident = msgspec.structs.replace(incident, page=page, deliveries=[delivery])
    assert read == msgspec.structs.replace(WIRE["page_case"], incidents=[incident])
