"""`make demo-pagers` says yes only to what holds: its findings on what a receiver got, and the receiver itself."""

import urllib.request
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from deploy.cli.demo_pagers import VENDORS, Told, findings, scenario_with_vendors
from deploy.cli.pager_receiver import Received, receiving
from deploy.replay.result import ReplayResult
from signals.events import SwitchState
from support.pager_rig import switch

KILL_MS = 1_721_362_200_000


def got(
    action: str,
    *,
    late_ms: int = 100,
    service: str = "crowdstrike",
    severity: str = "critical",
    key: str = "k",
    frames: str = "csagent.sys|0x50 most often at csagent.sys+0xe14ed, csagent.sys+0xb5d9e (17 of 17 devices)",
) -> Received:
    body: dict[str, Any] = {"event_action": action, "dedup_key": key}
    if action == "trigger":
        body["payload"] = {"severity": severity, "custom_details": {"Frames": frames}}
    return Received(KILL_MS + late_ms, service, "v2/enqueue", body)


def told(**fields: Any) -> Told:
    usual: dict[str, Any] = {
        "result": msgspec.json.decode(b"null", type=ReplayResult | None),
        "kill": switch(3, SwitchState.KILLED, KILL_MS),
        "received": [got("trigger", severity="error", late_ms=-500), got("trigger"), got("resolve", late_ms=9000)],
        "released_ms": KILL_MS + 8000,
        "stored": 3,
        "modules": len(VENDORS),
    }
    return Told(**(usual | fields))


def failing(seen: Told) -> list[str]:
    return [what for what, _, holds in findings(seen) if not holds]


def test_what_should_hold_holds() -> None:
    assert failing(told()) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda good: {"received": [*good, got("trigger", service="nvidia")]}, "exactly one vendor was told"),
        (lambda good: {"received": [*good, got("trigger", key="k2")]}, "one critical page"),
        (lambda good: {"received": [good[0], got("trigger", late_ms=10_001), good[2]]}, "page within 10 s of the kill"),
        (
            lambda good: {"received": [good[0], got("trigger", frames="a.sys|0x1 most often at a.sys+0x1"), good[2]]},
            "the page names the place in the code",
        ),
        (lambda good: {"received": good[:2]}, "resolved after the release"),
        (lambda good: {"stored": 2}, "what was sent is in the store"),
        (lambda good: {"modules": 19}, "modules of all 20 vendors crashed"),
        (lambda good: {"kill": None}, "page within 10 s of the kill"),
    ],
)
def test_what_does_not_hold_is_named(change: Callable[[list[Received]], dict[str, Any]], what: str) -> None:
    assert what in failing(told(**change(told().received)))


def test_nothing_received_is_no_success() -> None:
    assert len(failing(told(received=[], stored=0))) == 7


def test_every_vendor_of_the_demo_crashes_in_the_background() -> None:
    assert len({vendor for vendor, _, _ in VENDORS}) == len({module for _, module, _ in VENDORS}) == 20
    scenario = scenario_with_vendors()
    assert {crash.module for crash in scenario.background.crashes} == {module for _, module, _ in VENDORS}


def test_the_receiver_keeps_what_it_is_sent_by_address() -> None:
    with receiving() as receiver:
        request = urllib.request.Request(
            f"{receiver.url}/acme/v2/enqueue", data=b'{"event_action": "trigger", "dedup_key": "k"}'
        )
        with urllib.request.urlopen(request) as answer:
            assert (answer.status, b'"dedup_key": "k"' in answer.read()) == (202, True)
        found = receiver.wait("trigger", 10)
        assert found is not None
        assert (found.service, found.path) == ("acme", "v2/enqueue")
        assert receiver.wait("resolve", 0.01) is None
