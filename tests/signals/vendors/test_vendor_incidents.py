"""Vendors' rollouts and incidents: closed words and steps of a ladder, whose they are, and valid feeds."""

import json
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.recovery import Recovery, RecoveryRow
from detectors.scope import Scope
from detectors.stacks import Stack
from detectors.verdict import DecisionWord, Verdict
from ingest.clock import DrivenClock
from ingest.events import encoder
from ingest.log.interface import Record, TopicPartition
from ingest.rollouts import Bound, Rollout
from signals.delivery.views import Views
from signals.events import SwitchRecord, SwitchState
from signals.killswitch.event import cloud_event
from signals.pagers.registry import Registry
from signals.vendors.anonymity import Terms
from signals.vendors.desk import VendorDesk, VendorSource
from signals.vendors.feed import IncidentFeed, atom
from signals.vendors.words import VendorStack
from support.pager_rig import switch
from support.switches import KEYS, SIGNER, START_MS, verdict
from support.vendors import registry

ATOM = "{http://www.w3.org/2005/Atom}"
SOURCE = TopicPartition("x", 0)


class World:
    """Views filled by hand, and a desk over them."""

    def __init__(self) -> None:
        self.views = Views(KEYS)
        in_force: Registry = registry()
        self.desk = VendorDesk(
            self.views, DrivenClock(START_MS), VendorSource(registry=lambda: in_force, terms=Terms())
        )

    def rollout(
        self, name: str, vendor: str, *, declared: bool = True, product: str = "agent", version: str = "7"
    ) -> None:
        self.take(self.views.take_rollouts, name, Rollout(
            rollout=name, vendor=vendor, product=product, update_kind="content", version=version, origin_ms=START_MS,
            bound=Bound.DECLARED, declared_by="person-1" if declared else "",
            discovered_by="" if declared else "gateway",
        ))  # fmt: skip

    def judged(
        self,
        name: str,
        vendor: str,
        crashed: int = 40,
        tenants: int = 4,
        recovery: Recovery | None = None,
        stacks: Sequence[Stack] = (),
    ) -> Verdict:
        said = verdict(DecisionWord.KILL, rollout=name)
        said.vendor, said.product, said.version, said.recovery = vendor, "agent", "7", recovery
        said.sentence = "tenant-Acme crashed"
        said.evidence = msgspec.structs.replace(
            said.evidence, crashes_exposed=crashed, tenants=tenants, exposed=crashed + 3, stacks=list(stacks)
        )
        self.take(self.views.take_verdicts, name, said)
        return said

    def moved(self, name: str, vendor: str, state: SwitchState, number: int = 1, scope: Scope | None = None) -> None:
        data = switch(number, state, START_MS + number, rollout=name, vendor=vendor, product="agent", version="7",
                      sentence="tenant-Acme crashed", **({} if scope is None else {"scope": scope}))  # fmt: skip
        envelope = SIGNER.sign(encoder.encode(cloud_event(data)))
        self.take(self.views.take_switches, name, SwitchRecord(envelope=envelope, offsets={}))

    def take(self, take: Callable[[TopicPartition, list[Record]], None], name: str, value: object) -> None:
        take(SOURCE, [Record(offset=0, key=name.encode(), value=encoder.encode(value), appended_at_ms=START_MS)])

    def feed(self, vendor: str) -> IncidentFeed:
        return self.desk.incidents(frozenset({vendor}))


def test_incidents_are_shared_by_those_who_name_each_other() -> None:
    world = World()
    for number, vendor in enumerate(("crowdstrike", "sentinelone", "sophos", "nobody")):
        world.rollout(f"r-{vendor}", vendor)
        world.moved(f"r-{vendor}", vendor, SwitchState.KILLED, number + 1)
    seen = {
        vendor: {item.id for item in world.feed(vendor).items} for vendor in ("crowdstrike", "sentinelone", "sophos")
    }
    assert seen == {
        "crowdstrike": {"r-crowdstrike", "r-sentinelone"},
        "sentinelone": {"r-crowdstrike", "r-sentinelone"},
        # crowdstrike would share with sophos, which does not share with it.
        "sophos": {"r-sophos"},
    }


def test_a_rollout_that_was_never_stopped_is_no_incident_and_one_that_was_stays_one() -> None:
    world = World()
    for name, state in (("r-1", SwitchState.WATCHING), ("r-2", SwitchState.HELD), ("r-3", SwitchState.RELEASED)):
        world.rollout(name, "sophos")
        world.moved(name, "sophos", state)
    assert {item.id: item.title.split(":")[0] for item in world.feed("sophos").items} == {"r-2": "HELD", "r-3": "OVER"}


def test_what_nobody_declared_is_told_once_enough_tenants_crash_on_it() -> None:
    world = World()
    world.rollout("r-1", "sophos", declared=False, version="acme-only")
    world.judged("r-1", "sophos", crashed=400, tenants=2)
    assert world.desk.health(frozenset({"sophos"}), None).rollouts == []
    world.judged("r-1", "sophos", crashed=400, tenants=3)
    (told,) = world.desk.health(frozenset({"sophos"}), None).rollouts
    assert told.evidence is not None
    assert told.evidence.crashed_at_least == 200


def test_numbers_are_steps_and_nothing_free_is_told() -> None:
    world = World()
    world.rollout("r-1", "sophos")
    recovery = Recovery(silent=4, looping=0, recovered=77, rows=[
        RecoveryRow(ring="Acme", tenant=f"#{n}", silent=1, recovered=19 + (n == 0)) for n in range(4)
    ])  # fmt: skip
    world.judged("r-1", "sophos", crashed=47, recovery=recovery)
    world.moved("r-1", "sophos", SwitchState.KILLED, scope=None)
    (told,) = world.desk.health(frozenset({"sophos"}), None).rollouts
    assert told.evidence is not None
    assert told.recovery is not None
    assert (told.evidence.crashed_at_least, told.evidence.exposed_at_least) == (20, 50)
    assert (told.recovery.silent_at_least, told.recovery.recovered_at_least) == (None, 50)
    text = msgspec.json.encode(world.feed("sophos")).decode() + msgspec.json.encode(told).decode()
    assert "Acme" not in text
    assert "at least 50 recovered" in text


def stack(signature: str, *frames: str, devices: int = 47, tenants: int = 4) -> Stack:
    return Stack(signature=signature, frames=list(frames), devices=devices, tenants=tenants)


def test_frames_are_told_of_their_own_modules_and_of_enough_devices_and_tenants() -> None:
    world = World()
    world.rollout("r-1", "crowdstrike")
    world.judged("r-1", "crowdstrike", crashed=200, stacks=[
        stack("csagent.sys|0x50", "csagent.sys+0xe14ed", "sentinelmon.sys+0x10", "csagent2.sys+0x20"),
        stack("sentinelmon.sys|0x50", "sentinelmon.sys+0x30"),
        stack("csagent.sys|0x7e", "csagent.sys+0x40", devices=4),
        stack("csagent.sys|0xd1", "csagent.sys+0x50", tenants=2),
    ])  # fmt: skip
    world.moved("r-1", "crowdstrike", SwitchState.KILLED)
    (told,) = world.desk.health(frozenset({"crowdstrike"}), None).rollouts
    assert told.evidence is not None
    assert told.evidence.stacks == [
        VendorStack(
            signature="csagent.sys|0x50",
            frames=["csagent.sys+0xe14ed", "(other)", "csagent2.sys+0x20"],
            crashed_at_least=20,
        )
    ]
    (item,) = world.feed("crowdstrike").items
    assert "csagent.sys|0x50 most often at csagent.sys+0xe14ed, (other), csagent2.sys+0x20, " in item.content_text
    assert "on at least 20 devices." in item.content_text
    # Who shares with them both ways sees the incident, and of it the frames in their own modules only.
    (shared,) = world.feed("sentinelone").items
    assert "sentinelmon.sys|0x50 most often at sentinelmon.sys+0x30" in shared.content_text
    assert "csagent" not in shared.content_text


def test_a_stop_of_one_tenant_is_not_told() -> None:
    world = World()
    world.rollout("r-1", "sophos")
    world.moved("r-1", "sophos", SwitchState.KILLED, scope=Scope(tenant="Acme"))
    assert world.feed("sophos").items == []
    (told,) = world.desk.health(frozenset({"sophos"}), None).rollouts
    assert told.state == ""


@given(st.text(max_size=64), st.text(max_size=64))
@settings(max_examples=60, deadline=None)
def test_both_feeds_are_valid_whatever_updates_are_called(product: str, version: str) -> None:
    world = World()
    world.rollout("r-1", "sophos", product=product, version=version)
    world.moved("r-1", "sophos", SwitchState.KILLED)
    feed = world.feed("sophos")
    parsed = json.loads(msgspec.json.encode(feed))
    assert parsed["version"] == "https://jsonfeed.org/version/1.1"
    assert all(isinstance(item[name], str) for item in parsed["items"] for name in ("id", "title", "content_text"))
    root = ET.fromstring(atom(feed, "http://127.0.0.1/v1/vendors/me/incidents.atom"))
    assert [root.findtext(f"{ATOM}{name}") is not None for name in ("id", "title", "updated")] == [True] * 3
    for entry, item in zip(root.iter(f"{ATOM}entry"), feed.items, strict=True):
        assert entry.findtext(f"{ATOM}title") == item.title
        assert entry.findtext(f"{ATOM}updated") == item.date_modified


@pytest.mark.parametrize(("crashed", "tenants"), [(4, 4), (500, 2)])
def test_evidence_of_few_is_not_told(crashed: int, tenants: int) -> None:
    world = World()
    world.rollout("r-1", "sophos")
    world.judged("r-1", "sophos", crashed=crashed, tenants=tenants)
    (told,) = world.desk.health(frozenset({"sophos"}), None).rollouts
    assert told.evidence is None
    assert (told.decision, told.verdict) == ("kill", "regressed")
