"""The switch's table and the rules around it, one move at a time."""

from pathlib import Path

import pytest

from detectors.verdict import DecisionWord, Verdict, VerdictWord
from signals.events import Action, SwitchState
from signals.killswitch.machine import (
    GIVEN_DOCS,
    Cause,
    Given,
    Row,
    Standing,
    Transition,
    advance,
    given_of,
    table_markdown,
)
from support.switches import START_MS, command, verdict

README = Path(__file__).parents[2] / "signals" / "README.md"
KILLED = Standing(state=SwitchState.KILLED, number=1)
HELD = Standing(state=SwitchState.HELD, number=1)
HELD_BY_PERSON = Standing(state=SwitchState.HELD, cause="person", number=1)
RELEASED = Standing(state=SwitchState.RELEASED, cause="person", armed=False, number=2)
ALL_VERDICTS = [verdict(decision, word=word) for decision in DecisionWord for word in VerdictWord]


def moved(standing: Standing, decision: DecisionWord, *, dry_run: bool = False) -> Transition | None:
    return advance(standing, verdict(decision, dry_run=dry_run))


def test_readme_shows_the_table_and_what_its_columns_mean() -> None:
    text = README.read_text()
    assert table_markdown() in text
    for given, doc in GIVEN_DOCS.items():
        assert f"| {given.value} | {doc} |" in text


def test_every_pair_of_verdict_and_decision_has_a_column() -> None:
    assert {given_of(item) for item in ALL_VERDICTS} == {
        Given.CLEAR,
        Given.WATCH,
        Given.WARY,
        Given.BLIND,
        Given.HOLD,
        Given.KILL,
    }


@pytest.mark.parametrize("word", [VerdictWord.NO_DATA, VerdictWord.ERROR])
@pytest.mark.parametrize("decision", list(DecisionWord))
def test_blindness_neither_kills_nor_lifts(word: VerdictWord, decision: DecisionWord) -> None:
    asked = verdict(decision, word=word)
    for standing in (Standing(), HELD, HELD_BY_PERSON, KILLED, RELEASED):
        transition = advance(standing, asked)
        assert transition is None or transition.decision is DecisionWord.HOLD


def test_unknown_leaves_a_hold_in_place() -> None:
    assert moved(HELD, DecisionWord.UNKNOWN) is None
    assert advance(HELD, verdict(DecisionWord.UNKNOWN, word=VerdictWord.WATCHING)) is None


def test_the_detector_lifts_its_own_hold_and_not_a_persons() -> None:
    lifted = moved(HELD, DecisionWord.PROCEED)
    assert lifted is not None
    assert (lifted.state, lifted.decision) == (SwitchState.OBSERVING, DecisionWord.PROCEED)
    assert moved(HELD_BY_PERSON, DecisionWord.PROCEED) is None


def test_a_kill_beats_a_persons_hold() -> None:
    transition = moved(HELD_BY_PERSON, DecisionWord.KILL)
    assert transition is not None
    assert transition.state is SwitchState.KILLED


@pytest.mark.parametrize("asked", ALL_VERDICTS)
def test_no_verdict_moves_what_is_killed_or_released(asked: Verdict) -> None:
    for standing in (KILLED, RELEASED):
        assert advance(standing, asked) is None


def test_after_a_release_a_person_may_stop_again_but_the_detector_stays_out() -> None:
    again = advance(RELEASED, command(Action.HOLD, "c-1"))
    assert again is not None
    assert (again.state, again.armed) == (SwitchState.HELD, False)
    held = Standing(state=again.state, cause=again.cause, armed=again.armed, number=3)
    assert moved(held, DecisionWord.KILL) is None


def test_a_release_needs_something_to_release() -> None:
    for state in (SwitchState.OBSERVING, SwitchState.WATCHING):
        assert advance(Standing(state=state), command(Action.RELEASE, "c-1")) is None


@pytest.mark.parametrize("cause", ["detector", "person"])
def test_a_killed_switch_takes_no_hold(cause: Cause) -> None:
    assert advance(Standing(state=SwitchState.KILLED, cause=cause), command(Action.HOLD, "c-1")) is None


def test_an_older_verdict_told_again_moves_nothing_unless_it_kills() -> None:
    standing = Standing(state=SwitchState.OBSERVING, number=2, watermark_ms=START_MS)
    assert advance(standing, verdict(DecisionWord.HOLD, at_ms=START_MS - 1)) is None
    assert advance(standing, verdict(DecisionWord.HOLD, at_ms=START_MS)) is not None
    assert advance(standing, verdict(DecisionWord.KILL, at_ms=START_MS - 1)) is not None


class TestDryRun:
    def test_a_dry_kill_is_marked_and_latches_for_dry_verdicts(self) -> None:
        transition = moved(Standing(), DecisionWord.KILL, dry_run=True)
        assert transition is not None
        assert (transition.state, transition.dry_run) == (SwitchState.KILLED, True)
        dry = Standing(state=SwitchState.KILLED, dry_run=True, number=1)
        assert moved(dry, DecisionWord.PROCEED, dry_run=True) is None

    @pytest.mark.parametrize(("decision", "state"), [("kill", SwitchState.KILLED), ("hold", SwitchState.HELD)])
    def test_a_live_stop_is_made_over_a_dry_one(self, decision: str, state: SwitchState) -> None:
        dry = Standing(state=SwitchState.KILLED, dry_run=True, number=1)
        transition = moved(dry, DecisionWord(decision))
        assert transition is not None
        assert (transition.state, transition.dry_run) == (state, False)

    def test_a_persons_hold_over_a_dry_kill_is_live(self) -> None:
        transition = advance(Standing(state=SwitchState.KILLED, dry_run=True), command(Action.HOLD, "c-1"))
        assert transition is not None
        assert (transition.state, transition.dry_run) == (SwitchState.HELD, False)

    def test_a_dry_verdict_may_lift_a_live_hold_but_not_worsen_it(self) -> None:
        assert moved(HELD, DecisionWord.KILL, dry_run=True) is None
        lifted = moved(HELD, DecisionWord.PROCEED, dry_run=True)
        assert lifted is not None
        assert not lifted.dry_run


def test_a_row_is_a_state_and_a_hold_knows_who_set_it() -> None:
    assert Standing().row is Row.OBSERVING
    assert HELD.row is Row.HELD
    assert HELD_BY_PERSON.row is Row.HELD_BY_PERSON
