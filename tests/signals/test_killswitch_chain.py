"""A subscriber's order check: gaps, replacements, repeats, other lanes."""

import pytest

from detectors.verdict import DecisionWord
from ingest.events import encoder
from ingest.topics import Topics
from signals.killswitch.verify import (
    Chain,
    NumberGapError,
    PreviousDigestError,
    TwoDecisionsError,
    VerifiedEvent,
    WrongLaneError,
    open_event,
)
from support.switches import KEYS, SIGNER, SwitchRig, verdict


@pytest.fixture
def events() -> list[VerifiedEvent]:
    rig = SwitchRig()
    for decision in (DecisionWord.HOLD, DecisionWord.PROCEED, DecisionWord.HOLD, DecisionWord.KILL):
        rig.say(verdict(decision))
    rig.settle()
    return rig.events()


def signed_again(event: VerifiedEvent, **changes: object) -> VerifiedEvent:
    for name, value in changes.items():
        setattr(event.event.data, name, value)
    return open_event(SIGNER.sign(encoder.encode(event.event)), KEYS)


def test_a_whole_chain_is_taken_and_repeats_are_dropped(events: list[VerifiedEvent]) -> None:
    chain = Chain(from_start=True)
    assert [chain.accept(event) for event in events] == [True] * 4
    assert [chain.accept(event) for event in events] == [False] * 4


def test_a_late_subscriber_begins_anywhere_unless_it_asked_for_the_start(events: list[VerifiedEvent]) -> None:
    assert Chain().accept(events[2])
    with pytest.raises(NumberGapError):
        Chain(from_start=True).accept(events[2])


def test_a_hole_is_noticed(events: list[VerifiedEvent]) -> None:
    chain = Chain()
    chain.accept(events[0])
    with pytest.raises(NumberGapError, match="missing"):
        chain.accept(events[2])


def test_two_decisions_under_one_number_are_noticed(events: list[VerifiedEvent]) -> None:
    chain = Chain()
    chain.accept(events[0])
    with pytest.raises(TwoDecisionsError):
        chain.accept(signed_again(events[0], decision=DecisionWord.PROCEED))


def test_an_event_that_follows_another_past_is_refused(events: list[VerifiedEvent]) -> None:
    chain = Chain()
    chain.accept(events[0])
    with pytest.raises(PreviousDigestError):
        chain.accept(signed_again(events[1], previous_digest="0" * 64))
    # The refused one left no trace: the true one is still next.
    assert not chain.accept(events[0])


def test_a_first_event_has_no_past(events: list[VerifiedEvent]) -> None:
    with pytest.raises(PreviousDigestError):
        Chain().accept(signed_again(events[0], previous_digest="0" * 64))


def test_a_replay_does_not_move_a_real_rollout() -> None:
    rig = SwitchRig(Topics(lane="replay-1"))
    rig.say(verdict(DecisionWord.KILL))
    rig.settle()
    [event] = rig.events()
    with pytest.raises(WrongLaneError, match="replay-1"):
        Chain().accept(event)
    assert Chain("replay-1").accept(event)
