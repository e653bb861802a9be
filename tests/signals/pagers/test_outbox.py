"""The outbox: who is told of what and when, over restarts, mutes, drills, dry runs, storms and failing routes."""

from typing import Any

import pytest

from detectors.drill import PRODUCT, VENDOR
from detectors.scope import WHOLE, Scope
from detectors.stacks import Stack
from detectors.verdict import DecisionWord, VerdictWord
from ingest.rollouts import Bound, Ring, Rollout
from signals.events import Mode, ScopedStop, SwitchState
from signals.pagers.words import OrderAction, Step
from support.pager_rig import REGISTRY, Rig, evidence
from support.switches import ROLLOUT, START_MS, verdict


def loud(rig: Rig, route: str) -> list[str]:
    """Return the levels that woke somebody over a route."""
    return [level.value for _, _, level in rig.vendors[route].woken]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def say_verdict(rig: Rig, *, seconds: float = 0, decision: DecisionWord = DecisionWord.KILL, **numbers: Any) -> None:
    said = verdict(decision, word=VerdictWord.REGRESSED, at_ms=START_MS + int(seconds * 1000))
    said.evidence = evidence(**numbers)
    rig.say("verdicts", said)


def test_watching_is_for_chats_a_hold_wakes_and_a_kill_is_louder_under_the_same_key(rig: Rig) -> None:
    rig.event(SwitchState.WATCHING)
    rig.run(1)
    assert rig.sent("chat") == [("trigger", "chat")]
    assert rig.sent("pager") == []
    rig.event(SwitchState.HELD)
    rig.run(1)
    rig.event(SwitchState.KILLED)
    rig.run(1)
    assert rig.sent("pager") == [("trigger", "high"), ("trigger", "critical")]
    assert len({one.key for one in rig.vendors["pager"].seen}) == 1
    assert rig.vendors["pager"].opened == {f"cordon/{ROLLOUT}/crowdstrike/1": 1}
    assert rig.sent("other") == rig.sent("soc") == []


def test_a_release_ends_it_at_once_everywhere(rig: Rig) -> None:
    rig.event(SwitchState.KILLED)
    rig.run(1)
    rig.event(SwitchState.RELEASED)
    rig.run(1)
    assert rig.sent("pager")[-1] == rig.sent("chat")[-1] == ("resolve", "none")
    assert rig.vendors["pager"].seen[-1].headline == "OVER: falcon-content 291 released"


def test_a_hold_that_comes_and_goes_pages_once_and_ends_after_calm(rig: Rig) -> None:
    for _ in range(5):
        rig.event(SwitchState.HELD)
        rig.run(10)
        rig.event(SwitchState.OBSERVING)
        rig.run(10)
    assert loud(rig, "pager") == ["high"]
    assert ("resolve", "none") not in rig.sent("pager")
    rig.run(120)
    assert rig.sent("pager")[-1] == ("resolve", "none")


def test_what_comes_back_later_is_a_new_incident_under_a_new_key(rig: Rig) -> None:
    for _ in range(2):
        rig.event(SwitchState.KILLED)
        rig.run(1)
        rig.event(SwitchState.RELEASED)
        rig.run(1)
    keys = [key for _, key, _ in rig.vendors["pager"].woken]
    assert keys == [f"cordon/{ROLLOUT}/crowdstrike/{episode}" for episode in (1, 2)]


def test_a_dry_run_pages_nobody_and_ends_nothing(rig: Rig) -> None:
    rig.event(SwitchState.KILLED, dry_run=True, mode=Mode.DRY_RUN)
    rig.run(1)
    assert not any(vendor.seen for vendor in rig.vendors.values())
    rig.event(SwitchState.KILLED)
    rig.run(1)
    killed = ScopedStop(scope=WHOLE, state=SwitchState.KILLED, number=2)
    rig.event(SwitchState.HELD, dry_run=True, whole=SwitchState.KILLED, whole_stop=killed)
    rig.run(300)
    assert rig.sent("pager") == [("trigger", "critical")]


def test_a_drill_goes_to_routes_that_ask_for_it_only() -> None:
    rig = Rig(REGISTRY.replace('secret_file = "soc.key"', 'secret_file = "soc.key"\ndrills = true'))
    rig.event(SwitchState.KILLED, vendor=VENDOR, product=PRODUCT)
    rig.run(1)
    assert rig.sent("soc") == [("trigger", "critical")]
    assert rig.vendors["soc"].seen[0].headline.startswith("DRILL")
    quiet = Rig()
    quiet.event(SwitchState.KILLED, vendor=VENDOR, product=PRODUCT)
    quiet.run(1)
    assert not any(vendor.seen for vendor in quiet.vendors.values())


def test_other_lanes_page_nobody_unless_the_registry_says_so(rig: Rig) -> None:
    rig.event(SwitchState.KILLED, lane="replay-1")
    rig.run(1)
    assert not any(vendor.seen for vendor in rig.vendors.values())


def test_a_stop_of_a_part_is_told_as_loud_as_the_part_stands(rig: Rig) -> None:
    scope = Scope(tenant="airline", ring="canary")
    stop = ScopedStop(scope=scope, state=SwitchState.KILLED, number=1)
    rig.event(SwitchState.KILLED, scope=scope, whole=SwitchState.OBSERVING, stops=[stop])
    rig.run(1)
    said = rig.vendors["pager"].seen[0]
    assert said.headline.startswith("KILLED (ring canary, one customer): falcon-content 291")
    assert "airline" not in str(said)


def test_an_unknown_vendor_goes_to_the_default_routes(rig: Rig) -> None:
    rig.event(SwitchState.KILLED, vendor="somebody")
    rig.run(1)
    assert rig.sent("soc") == [("trigger", "critical")]
    assert rig.sent("pager") == []


def test_the_owner_of_the_crashing_module_is_told_quietly_and_a_background_crash_is_not_worth_it() -> None:
    rig = Rig(REGISTRY.replace('secret_file = "other.key"', 'secret_file = "other.key"\nleast = "chat"'))
    few = evidence(signatures=[("csagent.sys|0x50", 18), ("acme1.sys|0x50", 2)])
    rig.event(SwitchState.KILLED, evidence=few)
    rig.run(1)
    assert rig.sent("other") == []
    rig.event(SwitchState.RELEASED)
    rig.run(1)
    many = evidence(
        signatures=[("csagent.sys|0x50", 10), ("acme1.sys|0x50", 10)],
        stacks=[
            Stack(signature="csagent.sys|0x50", frames=["csagent.sys+0xe14ed"], devices=10),
            Stack(signature="acme1.sys|0x50", frames=["acme1.sys+0x10"], devices=10),
        ],
    )
    rig.event(SwitchState.KILLED, evidence=many)
    rig.run(1)
    assert rig.sent("other") == [("trigger", "chat")]
    told = rig.vendors["other"].seen[0]
    assert "acme1.sys crashes where" in told.headline
    # Where the other vendor's code crashes is for that one to know.
    assert [one.signature for one in told.page.stacks] == ["acme1.sys|0x50"]
    assert len(rig.vendors["pager"].seen[-1].page.stacks) == 2
    rig.event(SwitchState.RELEASED)
    rig.run(1)
    assert rig.sent("other")[-1] == ("resolve", "none")


def test_ten_thousand_signatures_in_a_minute_are_one_page_and_few_updates(rig: Rig) -> None:
    rig.event(SwitchState.KILLED)
    rig.run(1)
    for number in range(100):
        many = [(f"m{each}.sys|0x50", 1) for each in range(number * 100)]
        say_verdict(rig, seconds=number * 0.6, signatures=many, crashes_exposed=11 + number * 100)
        rig.run(0.6)
    assert loud(rig, "pager") == ["critical"]
    assert len(rig.vendors["pager"].seen) == 1
    rig.run(300)
    assert rig.sent("pager") == [("trigger", "critical"), ("update", "critical")]
    assert "and 9895 more" in " ".join(rig.vendors["pager"].seen[-1].lines)
    assert len(rig.vendors["chat"].seen) == 1


def test_news_that_are_none_are_not_told(rig: Rig) -> None:
    rig.event(SwitchState.KILLED)
    rig.run(1)
    for number in range(20):
        say_verdict(rig, seconds=number * 60, crashes_exposed=11 + number % 3)
        rig.run(60, 5000)
    assert rig.sent("pager") == [("trigger", "critical")]


def test_held_for_want_of_sight_is_one_page_to_whoever_runs_cordon(rig: Rig) -> None:
    for number in range(50):
        rig.event(SwitchState.HELD, f"r-{number:016x}", reason="no_telemetry", evidence=None)
    rig.run(2)
    assert rig.sent("pager") == rig.sent("chat") == []
    assert loud(rig, "soc") == ["high"]
    for number in range(50):
        rig.event(SwitchState.OBSERVING, f"r-{number:016x}", evidence=None)
    rig.run(130)
    assert rig.sent("soc")[-1] == ("resolve", "none")
    assert len(rig.vendors["soc"].opened) == 1


def test_a_mute_keeps_quiet_until_its_end_and_what_stands_is_told_then(rig: Rig) -> None:
    rig.order(OrderAction.MUTE, vendor="crowdstrike", until_ms=START_MS + 60_000)
    rig.run(1)
    rig.event(SwitchState.HELD)
    rig.run(30)
    rig.restart()
    rig.run(20)
    assert rig.sent("pager") == []
    rig.run(20)
    assert loud(rig, "pager") == ["high"]


def test_a_kill_is_told_through_a_mute_unless_the_mute_is_for_kills(rig: Rig) -> None:
    rig.order(OrderAction.MUTE, vendor="crowdstrike", until_ms=START_MS + 3_600_000)
    rig.event(SwitchState.KILLED)
    rig.run(1)
    assert loud(rig, "pager") == ["critical"]
    other = Rig()
    other.order(OrderAction.MUTE, rollout=ROLLOUT, until_ms=START_MS + 3_600_000, kills=True)
    other.run(1)
    other.event(SwitchState.KILLED)
    other.run(5)
    assert other.sent("pager") == []
    other.order(OrderAction.UNMUTE, rollout=ROLLOUT)
    other.run(1)
    assert loud(other, "pager") == ["critical"]


def test_a_maintenance_window_keeps_holds_quiet() -> None:
    window = '[[maintenance]]\nfrom = 2024-07-22T00:00:00Z\nuntil = 2024-07-23T00:00:00Z\nreason = "lab"\n'
    rig = Rig(REGISTRY + window)
    rig.event(SwitchState.HELD)
    rig.run(5)
    assert not any(vendor.seen for vendor in rig.vendors.values())


def test_orders_are_bounded_and_their_results_closed_words(rig: Rig) -> None:
    rig.order(OrderAction.ACKNOWLEDGE, rollout="r-unknown")
    rig.order(OrderAction.MUTE, vendor="acme", until_ms=START_MS - 1)
    rig.order(OrderAction.MUTE, vendor="acme", until_ms=START_MS + 30 * 86_400_000)
    rig.order(OrderAction.UNMUTE, vendor="acme")
    rig.run(1)
    assert [result for _, result in rig.stage._desk.handled] == [
        "unknown_rollout",
        "too_long",
        "too_long",
        "nothing_to_do",
    ]


def test_a_person_may_call_it_over_and_a_new_event_opens_it_again(rig: Rig) -> None:
    rig.event(SwitchState.KILLED)
    rig.run(1)
    rig.order(OrderAction.RESOLVE, rollout=ROLLOUT)
    rig.run(1)
    assert rig.sent("pager")[-1] == ("resolve", "none")
    say_verdict(rig, seconds=5, crashes_exposed=1000)
    rig.run(400)
    assert rig.sent("pager")[-1] == ("resolve", "none")
    rig.event(SwitchState.RELEASED)
    rig.event(SwitchState.KILLED)
    rig.run(1)
    assert rig.sent("pager")[-1] == ("trigger", "critical")


def test_the_start_of_each_ring_is_told_to_routes_that_ask_for_changes() -> None:
    rig = Rig(REGISTRY.replace('fallback = "duty"', 'fallback = "duty"\nchanges = true'))
    rings = [Ring(name="canary", starts_at_ms=START_MS), Ring(name="early", starts_at_ms=START_MS + 60_000)]
    declared = Rollout(
        rollout=ROLLOUT, vendor="crowdstrike", product="falcon-content", update_kind="content", version="291",
        origin_ms=START_MS, bound=Bound.DECLARED, rings=rings,
    )  # fmt: skip
    rig.say("rollouts", declared)
    for seconds in (0, 1, 59, 60, 61):
        say_verdict(rig, seconds=seconds, decision=DecisionWord.PROCEED)
        rig.run(2)
        rig.restart()
    changes = [one for one in rig.vendors["pager"].seen if one.step is Step.CHANGE]
    assert [one.headline for one in changes] == [
        "falcon-content 291: ring canary started",
        "falcon-content 291: ring early started",
    ]
    assert [step for step, _ in rig.sent("chat")] == []
    rig.event(SwitchState.KILLED)
    rig.run(1)
    assert loud(rig, "pager") == ["critical"]
    assert rig.vendors["pager"].seen[-1].page.ring == "canary"


def test_a_hold_that_a_mute_ends_is_over_at_once_and_nobody_is_told_a_name(rig: Rig) -> None:
    rig.event(SwitchState.HELD)
    rig.run(1)
    rig.event(SwitchState.MUTED, cause="person", decision=DecisionWord.PROCEED, mode=Mode.MUTED, name="Ada Lovelace")
    rig.run(1)
    assert rig.vendors["pager"].seen[-1].headline == "OVER: falcon-content 291 called over by a person"
