"""The outbox where things go wrong: refusals, routes that are away, deaths at any moment, and what comes twice."""

from typing import Any

import pytest

from detectors.verdict import DecisionWord, VerdictWord
from ingest.deadletter import deadletter_decoder
from ingest.log.interface import Entry
from signals.events import SwitchState
from signals.pagers.channels.interface import Answer
from signals.pagers.outbox import STALE_MS, OutboxSettings
from signals.pagers.words import Answered, Level, OrderAction
from support.pager_rig import Rig, evidence
from support.switches import ROLLOUT, SIGNER, START_MS, STRANGER, verdict

REFUSED = (False, Answer(Answered.REFUSED, 400, "bad request"))
DOWN = (False, Answer(Answered.RETRY, 503, "down"))


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


def test_an_order_that_comes_twice_is_obeyed_once_over_a_restart(rig: Rig) -> None:
    rig.event(SwitchState.KILLED)
    rig.run(1)
    rig.order(OrderAction.ACKNOWLEDGE, rollout=ROLLOUT)
    rig.run(1)
    record = rig.log.read(rig.source("pageorders"), 0)[0]
    rig.restart()
    rig.log.append([Entry(*rig.source("pageorders"), record.key, record.value)])
    rig.run(5)
    assert rig.sent("pager") == [("trigger", "critical"), ("acknowledge", "critical")]
    assert [step for step, _ in rig.sent("chat")] == ["trigger"]


def test_a_refused_page_goes_to_the_fallback_at_once_and_can_be_redelivered(rig: Rig) -> None:
    rig.vendors["pager"].behaves = lambda _: REFUSED
    rig.event(SwitchState.KILLED)
    rig.run(2)
    assert loud(rig, "duty") == ["critical"]
    assert len(rig.vendors["pager"].seen) == 1
    letters = [deadletter_decoder.decode(r.value or b"") for r in rig.log.read(rig.source("deadletter"), 0)]
    assert any("pager: bad request" in letter.detail for letter in letters)
    rig.vendors["pager"].behaves = lambda _: (True, Answer(Answered.DELIVERED, 202))
    rig.run(60)
    assert len(rig.vendors["pager"].seen) == 1
    rig.order(OrderAction.REDELIVER, rollout=ROLLOUT)
    rig.run(1)
    assert loud(rig, "pager") == ["critical"]
    rig.event(SwitchState.RELEASED)
    rig.run(1)
    assert not rig.vendors["pager"].open
    assert not rig.vendors["duty"].open


def test_a_route_that_is_away_for_a_minute_goes_to_the_fallback_and_is_tried_on(rig: Rig) -> None:
    rig.vendors["pager"].behaves = lambda _: DOWN
    rig.event(SwitchState.KILLED)
    rig.run(55)
    assert rig.sent("duty") == []
    rig.run(10)
    assert loud(rig, "duty") == ["critical"]
    rig.vendors["pager"].behaves = lambda _: (True, Answer(Answered.DELIVERED, 202))
    rig.run(61)
    assert loud(rig, "pager") == ["critical"]
    assert loud(rig, "duty") == ["critical"]


def test_fallbacks_of_fallbacks_are_told_in_turn(rig: Rig) -> None:
    rig.vendors["pager"].behaves = rig.vendors["duty"].behaves = lambda _: REFUSED
    rig.event(SwitchState.KILLED)
    rig.run(3)
    assert loud(rig, "soc") == ["critical"]


def test_what_cannot_be_delivered_for_a_day_is_given_up_and_kept() -> None:
    rig = Rig(settings=OutboxSettings(give_up_seconds=120))
    rig.vendors["pager"].behaves = lambda _: DOWN
    rig.event(SwitchState.KILLED)
    rig.run(200, 2000)
    seen = len(rig.vendors["pager"].seen)
    rig.run(200, 2000)
    assert len(rig.vendors["pager"].seen) == seen
    rig.vendors["pager"].behaves = lambda _: (True, Answer(Answered.DELIVERED, 202))
    rig.order(OrderAction.REDELIVER, rollout=ROLLOUT)
    rig.run(70)
    assert loud(rig, "pager") == ["critical"]


def test_an_event_that_nobody_signed_is_dead_lettered_and_tells_nobody(rig: Rig) -> None:
    from ingest.events import encoder
    from signals.killswitch.event import cloud_event
    from support.pager_rig import switch

    payload = encoder.encode(cloud_event(switch(1, SwitchState.KILLED, START_MS)))
    for signer in (STRANGER, SIGNER):
        rig.log.append([Entry(*rig.source("killswitch"), None, encoder.encode(signer.sign(payload)))])
        rig.run(1)
        assert len(rig.vendors["pager"].seen) == (signer is SIGNER)
    for word in ("killswitch", "verdicts", "pagings", "pageorders"):
        rig.log.append([Entry(*rig.source(word), b"x", b"\xff{")])
    rig.run(1)
    assert len(rig.log.read(rig.source("deadletter"), 0)) == 5


def test_what_was_decided_long_before_paging_began_is_followed_in_silence() -> None:
    rig = Rig()
    rig.event(SwitchState.KILLED, decided_ms=START_MS - STALE_MS - 1)
    rig.event(SwitchState.KILLED, "r-fresh", decided_ms=START_MS - STALE_MS + 1000)
    rig.run(1)
    assert {one.page.rollout for one in rig.vendors["pager"].seen} == {"r-fresh"}
    say_verdict(rig, crashes_exposed=5000)
    rig.event(SwitchState.RELEASED)
    rig.run(400, 5000)
    assert {one.page.rollout for one in rig.vendors["pager"].seen} == {"r-fresh"}


def test_nothing_is_told_twice_over_restarts_at_any_moment() -> None:
    rig = Rig()
    for state in (SwitchState.HELD, SwitchState.KILLED, SwitchState.RELEASED):
        rig.event(state)
        for _ in range(5):
            rig.run(1)
            rig.restart()
    assert rig.sent("pager") == [("trigger", "high"), ("trigger", "critical"), ("resolve", "none")]


def test_an_answer_lost_by_a_death_is_asked_for_again_under_the_same_key(rig: Rig) -> None:
    rig.latency_ms = lambda: 5000
    rig.event(SwitchState.KILLED)
    rig.run(1)
    rig.restart()
    rig.latency_ms = lambda: 100
    rig.run(2)
    assert rig.sent("pager") == [("trigger", "critical")] * 2
    assert len({one.key for one in rig.vendors["pager"].seen}) == 1
    assert rig.vendors["pager"].opened == {f"cordon/{ROLLOUT}/crowdstrike/1": 1}


def test_a_thousand_rollouts_over_one_route_come_at_its_rate_the_loudest_first() -> None:
    rig = Rig()
    for number in range(300):
        rig.event(SwitchState.HELD, f"r-{number:016x}")
    rig.event(SwitchState.KILLED, "r-kill")
    rig.run(3)
    woken = loud(rig, "pager")
    assert "critical" in woken[:2]
    assert len(woken) < 100
    rig.run(40)
    assert len(loud(rig, "pager")) == 301


def test_a_case_that_is_long_over_is_forgotten(rig: Rig) -> None:
    rig.event(SwitchState.KILLED)
    rig.run(1)
    rig.event(SwitchState.RELEASED)
    rig.run(1)
    rig.clock.drive_to(rig.clock.now_ms() + 15 * 86_400_000)
    rig.run(1)
    assert not rig.stage.cases
    rig.restart()
    assert not rig.stage.cases


def test_a_kill_that_nobody_heard_of_is_said_before_the_hold_after_it(rig: Rig) -> None:
    rig.vendors["pager"].behaves = lambda _: DOWN
    for state in (SwitchState.HELD, SwitchState.RELEASED, SwitchState.KILLED, SwitchState.RELEASED, SwitchState.HELD):
        rig.event(state)
        rig.run(1)
    rig.vendors["pager"].behaves = lambda _: (True, Answer(Answered.DELIVERED, 202))
    rig.run(30)
    assert "critical" in loud(rig, "pager")
    assert list(rig.vendors["pager"].open.values()) == [Level.HIGH]
    assert rig.vendors["pager"].strays == 0


def test_an_event_that_comes_again_is_taken_once(rig: Rig) -> None:
    rig.event(SwitchState.KILLED)
    rig.run(1)
    rig.event(SwitchState.RELEASED)
    rig.run(1)
    record = rig.log.read(rig.source("killswitch"), 0)[0]
    rig.log.append([Entry(*rig.source("killswitch"), record.key, record.value)])
    rig.run(5)
    assert [step for step, _ in rig.sent("pager")] == ["trigger", "resolve"]


def test_news_that_replace_a_waiting_page_are_still_a_page(rig: Rig) -> None:
    rig.vendors["pager"].behaves = lambda _: DOWN
    rig.event(SwitchState.HELD)
    rig.run(1)
    rig.event(SwitchState.HELD, reason="too_few_tenants")
    rig.run(1)
    rig.vendors["pager"].behaves = lambda _: (True, Answer(Answered.DELIVERED, 202))
    rig.run(30)
    assert loud(rig, "pager") == ["high"]
    assert rig.sent("pager")[-1] == ("trigger", "high")
    assert rig.vendors["pager"].seen[-1].page.number == 2


def test_news_while_a_page_is_under_way_are_no_second_page(rig: Rig) -> None:
    rig.latency_ms = lambda: 3000
    rig.event(SwitchState.HELD)
    rig.run(1)
    rig.event(SwitchState.HELD, reason="too_few_tenants")
    rig.run(20)
    assert rig.sent("pager") == [("trigger", "high"), ("update", "high")]
