"""What a release leaves the detector: of a hold, the kill that may follow; of a kill, nothing."""

from dataclasses import replace
from typing import Final

import pytest

from detectors.scope import WHOLE, Scope
from detectors.verdict import DecisionWord, VerdictWord
from signals.events import Action, Mode, SwitchState
from signals.killswitch.machine import by_detector, by_time
from signals.killswitch.standing import Standing, Stop
from signals.killswitch.table import Given, given_of
from support.moves import asked, moved, scoped, settled, with_parts
from support.switches import START_MS, verdict

TENANT: Final = Scope(tenant="acme")
KILLED = Standing(SwitchState.KILLED, DecisionWord.KILL, Stop(SwitchState.KILLED, "detector", 1), number=1)
HELD = Standing(SwitchState.HELD, DecisionWord.HOLD, Stop(SwitchState.HELD, "detector", 1), number=1)
HELD_BY_PERSON = replace(HELD, stop=Stop(SwitchState.HELD, "person", 1))
MUTED = Standing(SwitchState.MUTED, mode=Mode.MUTED, mode_until_ms=START_MS + 1000, number=1)
DRY_KILLED = Standing(dry={WHOLE: Stop(SwitchState.KILLED, "detector", 1)}, number=1)
ALL_VERDICTS = [verdict(decision, word=word) for decision in DecisionWord for word in VerdictWord]


@pytest.mark.parametrize("hold", [HELD, HELD_BY_PERSON, replace(HELD_BY_PERSON, mode=Mode.MUTED)])
def test_a_release_of_a_hold_leaves_the_detector_able_to_kill(hold: Standing) -> None:
    """One operator's word against a hold, or after a hold of their own, is no word against a kill to come."""
    after = asked(hold, Action.RELEASE).after
    assert (after.state, after.armed, after.strictest, after.mode) == ("released", True, "proceed", hold.mode)
    armed = replace(after, mode=Mode.LIVE)
    for said in ALL_VERDICTS:
        transition = by_detector(armed, said)
        assert (transition is not None) == (given_of(said) is Given.KILL), said
        assert transition is None or (transition.state, transition.previous_state) == ("killed", "released")


def test_a_part_that_was_released_stays_so_when_the_whole_is_released_from_a_hold() -> None:
    part = asked(HELD.with_part(TENANT, Stop(SwitchState.KILLED, "detector", 1)), Action.RELEASE, scope=TENANT).after
    after = asked(part, Action.RELEASE).after
    assert settled(after, with_parts(DecisionWord.HOLD, scoped(TENANT, DecisionWord.KILL))) == after


def test_after_a_release_of_a_hold_a_part_is_killed_and_never_held() -> None:
    held = settled(Standing(), with_parts(DecisionWord.HOLD, scoped(TENANT, DecisionWord.HOLD)))
    after = asked(held, Action.RELEASE).after
    assert after.parts == {}
    assert settled(after, with_parts(DecisionWord.HOLD, scoped(TENANT, DecisionWord.HOLD))) == after
    killed = settled(after, with_parts(DecisionWord.HOLD, scoped(TENANT, DecisionWord.KILL)))
    assert (killed.state, killed.parts[TENANT].state, killed.strictest) == ("released", "killed", "kill")


@pytest.mark.parametrize(
    "killed", [KILLED, HELD.with_part(TENANT, Stop(SwitchState.KILLED, "detector", 1)), DRY_KILLED]
)
def test_a_release_of_a_kill_puts_the_detector_out_for_good(killed: Standing) -> None:
    after = asked(killed, Action.RELEASE).after
    assert (after.state, after.armed) == (SwitchState.RELEASED, False)
    assert all(by_detector(after, said) is None for said in ALL_VERDICTS)


def test_a_mode_beneath_a_released_hold_ends_and_lets_the_detector_kill() -> None:
    held = asked(MUTED, Action.HOLD).after
    released = asked(held, Action.RELEASE).after
    assert (released.mode, released.mode_until_ms) == (Mode.MUTED, MUTED.mode_until_ms)
    assert moved(released, DecisionWord.KILL) is None
    ended = by_time(released, MUTED.mode_until_ms, None)
    assert ended is not None
    assert (ended.state, ended.after.mode) == (SwitchState.RELEASED, Mode.LIVE)
    armed = asked(released, Action.ARM)
    assert (armed.state, armed.after.mode) == (SwitchState.RELEASED, Mode.LIVE)
    killed = moved(armed.after, DecisionWord.KILL)
    assert killed is not None
    assert killed.state is SwitchState.KILLED
