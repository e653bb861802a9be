"""What a page says, and what it never says: no device, no customer, no person."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from detectors.scope import Scope
from detectors.stacks import Stack
from detectors.verdict import Evidence, Method
from ingest.rollouts import Bound, Ring, Rollout
from ingest.signature import FRAME_CHARS_MAX
from signals.events import ScopedStop, Switch, SwitchState
from signals.pagers.content import (
    HEADLINE_MAX,
    body,
    facts,
    headline,
    links,
    modules_of,
    page_of,
    ring_at,
)
from signals.pagers.words import Level, Role, Step
from support.pager_rig import evidence, switch
from support.pages import MESSAGES, PAGE
from support.switches import START_MS

# No part of any word that a page may hold.
NAMES = st.from_regex(r"zq[a-z]{6}qz", fullmatch=True)


def rollout(**fields: Any) -> Rollout:
    usual: dict[str, Any] = {
        "rollout": "r-0123456789abcdef",
        "vendor": "crowdstrike",
        "product": "falcon-content",
        "update_kind": "content",
        "version": "291",
        "origin_ms": START_MS,
        "bound": Bound.DECLARED,
    }
    return Rollout(**(usual | fields))


@given(device=NAMES, tenant=NAMES, person=NAMES, free=NAMES)
@settings(max_examples=60, deadline=None)
def test_no_planted_name_of_a_device_customer_or_person_ever_appears(
    device: str, tenant: str, person: str, free: str
) -> None:
    scope = Scope(ring="canary", os_build="22631.3880", tenant=tenant)
    numbers = Evidence(
        log10_needed_to_hold=3.0,
        log10_needed_to_kill=6.0,
        tolerated_ratio=1.5,
        crashes_exposed=7,
        exposed=100,
        left_out=3,
        loudest_margin=(f"tenant={tenant}", 3.0),
        rivals=[f"{tenant} {device}"],
        attribution=f"{tenant} has {device}",
        gate=f"cell {tenant} holds",
        gate_holding=[(f"tenant={tenant}", 0.5, 1.0, 2.0, None)],
        methods=[Method(name="rate_ratio", log10_evidence=3.0, weight=1.0, note=f"{device} at {tenant}")],
        signatures=[("csagent.sys|0x50", 7)],
        cells=[(f"{tenant}/{device}", 1, 2, 3, 4)],
    )
    said = switch(
        3, SwitchState.KILLED, START_MS, cause="person", reason=f"{free} saw it on {device}", name=person,
        sentence=f"{person} asked: {tenant} {device}", principal=person, approved_by=person, command_id=free,
        scope=scope, stops=[ScopedStop(scope=scope, state=SwitchState.KILLED, number=3)], evidence=numbers,
        policy=free,
    )  # fmt: skip
    known = rollout(declared_by=person, discovered_by=tenant, rings=[Ring(name="canary", starts_at_ms=START_MS)])
    page = page_of(said, Level.CRITICAL, known, START_MS)
    for step in Step:
        texts = [headline(page, step), *body(page, step), *facts(page).values(), *map(str, links(page, "https://x"))]
        told = " ".join(texts) + repr(page)
        for name in (device, tenant, person, free):
            assert name not in told
    assert "one customer" in headline(page, Step.TRIGGER)


@given(MESSAGES)
def test_the_short_text_fits_a_telephone_and_every_line_is_plain(said: Any) -> None:
    assert 0 < len(said.headline) <= HEADLINE_MAX
    for line in (said.headline, *said.lines):
        assert line.isascii()
        assert line.isprintable()
        assert len(line) <= 500


def test_a_page_has_what_an_engineer_needs() -> None:
    told = facts(PAGE)
    assert told["Update"] == "crowdstrike falcon-content 291"
    assert told["Decision"] == "kill, 2024-07-19 04:10:00 UTC"
    assert told["Crashed"] == "11 of 180 devices on it, at 4 customers; 1 without it"
    assert told["Rate against control"] == "310.5 times, 95 % interval 44.1 to 4,100.0"
    assert told["First seen"] == "2024-07-19 04:09:30 UTC"
    assert told["Top signatures"] == "csagent.sys|0x50 (10); ntfs.sys|0x24 (1)"
    assert told["Frames"] == (
        "csagent.sys|0x50 most often at csagent.sys+0xe14ed, csagent.sys+0xb5d9e, csagent.sys+0xdee01 "
        "(9 of 10 devices); ntfs.sys|0x24 most often at ntfs.sys+0x1c2f0 (at least 1 of 1 device)"
    )
    assert told["Ring"] == "canary"
    assert headline(PAGE, Step.TRIGGER) == "KILLED: falcon-content 291, 11 crashed, 310x control"
    assert [text for text, _ in links(PAGE, "https://c.example.net")] == ["Console", "Board", "Runbook", "Verdict"]
    assert links(PAGE, "") == []


def test_frames_stand_under_the_signatures_a_line_each() -> None:
    lines = body(PAGE, Step.TRIGGER)
    place = lines.index("Top signatures: csagent.sys|0x50 (10); ntfs.sys|0x24 (1)")
    assert lines[place + 1].startswith("Frames: csagent.sys|0x50 most often at csagent.sys+0xe14ed, ")
    assert lines[place + 2] == "Frames: ntfs.sys|0x24 most often at ntfs.sys+0x1c2f0 (at least 1 of 1 device)"
    assert not [line for line in body(replace(PAGE, stacks=[]), Step.TRIGGER) if line.startswith("Frames")]


ANY_STACKS = st.lists(
    st.builds(
        Stack,
        signature=st.sampled_from(["a.sys|0x1", "b.sys|0x2", "c.sys|0x3"]) | st.text(max_size=400),
        frames=st.lists(st.text(max_size=300), max_size=9),
        devices=st.integers(0, 10**7),
    ),
    max_size=12,
)


@given(ANY_STACKS)
@settings(max_examples=100, deadline=None)
def test_frames_of_any_evidence_are_few_plain_and_of_listed_signatures(stacks: list[Stack]) -> None:
    numbers = evidence(signatures=[("a.sys|0x1", 3), ("b.sys|0x2", 2)], stacks=stacks)
    page = page_of(switch(1, SwitchState.HELD, START_MS, evidence=numbers), Level.HIGH, None, START_MS)
    assert [one.signature for one in page.stacks] == [
        name
        for name in ("a.sys|0x1", "b.sys|0x2")
        if any(one.signature == name and any(one.frames[:3]) for one in stacks)
    ]
    for frame in (frame for one in page.stacks for frame in one.frames):
        assert frame.isascii()
        assert frame.isprintable()
        assert 0 < len(frame) <= FRAME_CHARS_MAX
    assert all(len(one.frames) <= 3 for one in page.stacks)


def test_ten_thousand_signatures_are_five_and_a_number() -> None:
    many = evidence(signatures=[(f"m{number:05}.sys|0x50", number) for number in range(10_000)])
    page = page_of(switch(1, SwitchState.HELD, START_MS, evidence=many), Level.HIGH, None, START_MS)
    assert [count for _, count in page.signatures] == [9999, 9998, 9997, 9996, 9995]
    assert page.signatures_more == 9995
    assert "and 9995 more" in facts(page)["Top signatures"]


def test_drills_lanes_co_victims_and_ends_are_called_so() -> None:
    assert headline(replace(PAGE, drill=True), Step.TRIGGER).startswith("DRILL KILLED")
    assert headline(replace(PAGE, lane="replay-1"), Step.TRIGGER).startswith("[replay-1] KILLED")
    co_victim = replace(PAGE, role=Role.CO_VICTIM, module="acme.sys")
    assert headline(co_victim, Step.TRIGGER) == "acme.sys crashes where crowdstrike falcon-content 291 was installed"
    assert headline(replace(PAGE, resolved_by="released"), Step.RESOLVE) == "OVER: falcon-content 291 released"
    assert headline(replace(PAGE, ring="early"), Step.CHANGE) == "falcon-content 291: ring early started"
    assert "drill" in body(replace(PAGE, drill=True), Step.TRIGGER)[0]


def test_the_ring_is_the_one_started_last() -> None:
    rings = [
        Ring(name="broad", starts_at_ms=START_MS + 2000),
        Ring(name="canary", starts_at_ms=START_MS),
        Ring(name="never"),
        Ring(name="early", starts_at_ms=START_MS + 1000),
    ]
    declared = rollout(rings=rings)
    assert [ring_at(declared, START_MS + late) for late in (-1, 0, 1500, 9000)] == ["", "canary", "early", "broad"]
    assert ring_at(None, START_MS) == ""


def test_modules_share_the_crashes_and_nobodys_module_has_none() -> None:
    shares = modules_of(
        evidence(signatures=[("a.sys|0x50", 6), ("a.sys|0x1e", 2), ("b.sys|0x50", 1), ("<unknown>|0x1", 1)])
    )
    assert shares == {"a.sys": 0.8, "b.sys": 0.1}


def test_a_person_is_a_person_whoever_it_was() -> None:
    said: Switch = switch(1, SwitchState.HELD, START_MS, cause="person", reason="they told us", evidence=None)
    assert facts(page_of(said, Level.HIGH, None, START_MS))["Why"] == "A person decided."
