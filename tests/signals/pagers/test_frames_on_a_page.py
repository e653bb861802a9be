"""From the bytes that a device posts to what PagerDuty is sent: the frames of its crash stand on the page."""

import json
from typing import Any

import httpx2

from detectors.verdict import DecisionWord
from ingest.activity import pack
from ingest.events import Batch, BootLoop, Bsod, Frame, Report, encoder
from ingest.gateway.parse import ParseLimits, parse
from ingest.rollouts import Bound, Rollout
from ingest.windows import Step as CohortStep
from signals.pagers.channels.pagerduty import PagerDutyChannel
from signals.pagers.words import Answered, Level
from support.cohorts import Harness
from support.gateway_rig import COLLECTOR
from support.grouping_bench import Bench
from support.pager_rig import Rig
from support.switches import ROLLOUT, SwitchRig
from support.world import NEW, OLD, PRODUCT, T0, VENDOR

SECOND = 1000
FAULT = [
    Frame(module="ntoskrnl.exe", offset=0x40F4E1),
    Frame(module="CSAgent.sys", offset=0xE14ED),
    Frame(module="C:\\Windows\\System32\\drivers\\csagent.sys", offset=0xB5D9E),
]
ELSEWHERE = [Frame(module="csagent.sys", offset=0x1000)]
HOSTILE = [Frame(module="evil\n\N{RIGHT-TO-LEFT OVERRIDE}.sys", offset=1), Frame(module="a|b<c>.sys", offset=2)]


def posted(reports: list[Any], now_ms: int) -> list[Report]:
    """Post reports as JSON, as the gateway takes them apart."""
    taken = parse(encoder.encode(reports), False, ParseLimits(), now_ms, COLLECTOR)
    assert not taken.refused
    return taken.reports


def steps() -> list[CohortStep]:
    """Return the cohort windows of a fleet of which fifty devices that were offered the update crash."""
    bench = Bench()
    world = bench.world
    bench.give("activity", bench.notice(rollout=ROLLOUT))
    fleet = posted([world.check_in(device, T0, OLD) for device in range(2000)], T0)
    bench.give("activity", encoder.encode(pack(fleet, "g", T0)))  # type: ignore[arg-type]  # check-ins only
    found = bench.tick(T0 + SECOND)
    offers = posted([world.offered(device, T0 + SECOND) for device in range(200)], T0 + SECOND)
    bench.give("activity", encoder.encode(pack(offers, "g", T0 + SECOND)))  # type: ignore[arg-type]  # offers only
    found += bench.tick(T0 + 2 * SECOND)
    frames = [FAULT] * 30 + [ELSEWHERE] * 10 + [HOSTILE] * 10
    at_ms = T0 + 3 * SECOND
    crashes = posted([world.bsod(n, at_ms, NEW, frames=each) for n, each in enumerate(frames)], at_ms)
    crashes = [crash for crash in crashes if isinstance(crash, Bsod | BootLoop)]
    bench.give("crashes", encoder.encode(Batch(gateway="g", received_at_ms=at_ms, reports=crashes)))
    return found + bench.tick(T0 + 4 * SECOND)


def test_the_frames_of_a_posted_crash_stand_on_the_page() -> None:
    detection = Harness(partitions=1)
    detection.declare(Rollout(
        rollout=ROLLOUT, vendor=VENDOR, product=PRODUCT, update_kind="content", version=NEW, origin_ms=T0,
        bound=Bound.OFFERED,
    ))  # fmt: skip
    detection.feed(steps())
    verdict = detection.latest()
    assert verdict.decision is DecisionWord.KILL
    switch = SwitchRig()
    switch.declare()
    pagers = Rig(beside=switch)
    switch.say(verdict)
    switch.settle()
    pagers.run(1)
    said = pagers.vendors["pager"].seen[-1]
    assert said.level is Level.CRITICAL
    sent: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(json.loads(request.content))
        return httpx2.Response(202, json={"status": "success", "message": "", "dedup_key": said.key})

    assert PagerDutyChannel("k", transport=httpx2.MockTransport(answer)).send(said).answered is Answered.DELIVERED
    details = sent[0]["payload"]["custom_details"]
    assert details["Frames"] == (
        "csagent.sys|0x50 most often at csagent.sys+0xe14ed, csagent.sys+0xb5d9e (30 of 50 devices)"
    )
    assert f"Frames: {details['Frames']}" in details["Text"].split("\n")
    assert "evil" not in json.dumps(sent)
