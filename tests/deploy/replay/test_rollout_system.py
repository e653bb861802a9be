"""The simulated rollout system and its subscription: whom it obeys, and what it does with a stream that fails."""

import threading
from collections.abc import Iterator

import pytest

from deploy.replay.client import ReplayError
from deploy.replay.rollout_system import RolloutSystem
from deploy.replay.subscription import StreamSubscription
from detectors.backtest.fleet import Fleet
from detectors.verdict import DecisionWord
from signals.events import Switch, SwitchState
from support.replay_gateway import switch
from support.scenarios import run_through, small


def _at_rollout() -> Fleet:
    fleet = Fleet(small())
    while fleet.now_ms < fleet.scenario.rollout_ms:
        fleet.step()
    return fleet


@pytest.mark.parametrize("state", [SwitchState.HELD, SwitchState.KILLED])
def test_a_hold_or_kill_stops_the_update(state: SwitchState) -> None:
    fleet = _at_rollout()
    RolloutSystem(fleet).take(switch(1, fleet.now_ms - 10_000, state))
    run_through(fleet)
    assert fleet.truth().pushed == 0


@pytest.mark.parametrize(
    "event",
    [
        switch(1, 1_721_361_500_000, SwitchState.KILLED, dry_run=True),
        switch(1, 1_721_361_500_000, SwitchState.KILLED, version="292"),
        switch(1, 1_721_361_500_000, SwitchState.WATCHING),
        switch(1, 1_721_361_500_000, SwitchState.WATCHING, decision=DecisionWord.UNKNOWN),
    ],
    ids=["dry-run", "another-update", "watching", "unknown"],
)
def test_a_dry_run_another_update_or_mere_watching_stops_nothing(event: Switch) -> None:
    fleet = _at_rollout()
    RolloutSystem(fleet).take(event)
    run_through(fleet)
    assert fleet.truth().pushed > 150


def test_a_hold_that_is_lifted_or_released_goes_on() -> None:
    for lifted in (switch(2, 0, SwitchState.RELEASED, cause="person"), switch(2, 0, SwitchState.WATCHING)):
        fleet = _at_rollout()
        system = RolloutSystem(fleet)
        system.take(switch(1, fleet.now_ms - 10_000, SwitchState.HELD))
        fleet.step()
        system.take(lifted)
        run_through(fleet)
        assert fleet.truth().pushed > 150
        assert system.first_hold is not None
        assert system.first_kill is None


def test_the_counterfactual_notes_and_does_not_obey() -> None:
    fleet = _at_rollout()
    system = RolloutSystem(fleet, obeys=False)
    system.take(switch(1, fleet.now_ms - 10_000, SwitchState.KILLED))
    run_through(fleet)
    assert fleet.truth().pushed > 150
    assert system.first_kill is not None


def test_a_stop_that_comes_late_takes_effect_at_once_and_is_owned_up_to() -> None:
    fleet = _at_rollout()
    system = RolloutSystem(fleet)
    system.take(switch(1, fleet.now_ms - 60_000, SwitchState.KILLED))
    assert system.late_ms == 50_000
    assert system.stopped_ms == fleet.now_ms


def test_a_subscription_waits_for_as_many_events_as_there_are_and_hands_each_over_once() -> None:
    more = threading.Event()

    def events() -> Iterator[Switch]:
        yield switch(1, 1, SwitchState.HELD)
        more.wait(5)
        yield switch(2, 2, SwitchState.KILLED)
        threading.Event().wait(0.2)

    subscription = StreamSubscription(events, lambda: None)
    assert [event.number for event in subscription.received(1, 5)] == [1]
    with pytest.raises(ReplayError, match=r"1 of 2 kill-switch events came within 0\.05 s"):
        subscription.received(2, 0.05)
    more.set()
    assert [event.number for event in subscription.received(2, 5)] == [2]
    subscription.close()


def test_a_stream_that_fails_or_ends_stops_the_replay() -> None:
    def forged() -> Iterator[Switch]:
        yield switch(1, 1, SwitchState.HELD)
        raise ValueError("signature does not verify")

    subscription = StreamSubscription(forged, lambda: None)
    with pytest.raises(ReplayError, match="signature does not verify"):
        subscription.received(2, 5)
    ended = StreamSubscription(lambda: iter(()), lambda: None)
    with pytest.raises(ReplayError, match="ended by itself"):
        ended.received(1, 5)
