"""The switch's table and the rules around it, one move at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from detectors.scope import WHOLE, Scope
from detectors.verdict import DecisionWord, Verdict, VerdictWord
from signals.events import Action, Mode, SwitchState
from signals.killswitch.machine import Ended, Transition, by_detector, by_time
from signals.killswitch.people import by_person
from signals.killswitch.results import CommandResult
from signals.killswitch.standing import PARTS_MAX, Standing, Stop, standing_after
from signals.killswitch.table import GIVEN_DOCS, GIVEN_OF_ACTION, TABLE, Given, Row, given_of, row_of, table_markdown
from signals.killswitch.wording import switch_of
from support.moves import asked, moved, refused, scoped, settled, with_parts
from support.switches import ROLLOUT, START_MS, command, verdict

README = Path(__file__).parents[2] / "signals" / "README.md"
DETECTOR: Final = "detector"
PERSON: Final = "person"
TENANT, BUILD = Scope(tenant="acme"), Scope(os_build="22631")
KILLED = Standing(SwitchState.KILLED, DecisionWord.KILL, Stop(SwitchState.KILLED, DETECTOR, 1), number=1)
HELD = Standing(SwitchState.HELD, DecisionWord.HOLD, Stop(SwitchState.HELD, DETECTOR, 1), number=1)
HELD_BY_PERSON = replace(HELD, stop=Stop(SwitchState.HELD, PERSON, 1))
RELEASED = Standing(SwitchState.RELEASED, armed=False, number=2)
SPARED = replace(RELEASED, armed=True)
MUTED = Standing(SwitchState.MUTED, mode=Mode.MUTED, mode_until_ms=START_MS + 1000, number=1)
DRY = Standing(mode=Mode.DRY_RUN, number=1)
DRY_KILLED = Standing(dry={WHOLE: Stop(SwitchState.KILLED, DETECTOR, 1)}, number=1)
ALL_VERDICTS = [verdict(decision, word=word) for decision in DecisionWord for word in VerdictWord]


def test_readme_shows_the_table_and_what_its_columns_mean() -> None:
    text = README.read_text()
    assert table_markdown() in text
    for given, doc in GIVEN_DOCS.items():
        assert f"| {given.value} | {doc} |" in text


def test_every_pair_of_verdict_and_decision_has_a_column() -> None:
    person = {*GIVEN_OF_ACTION.values(), Given.END}
    assert {given_of(item) for item in ALL_VERDICTS} == set(Given) - person


STANDINGS = {
    Row.OBSERVING: Standing(),
    Row.WATCHING: Standing(SwitchState.WATCHING, DecisionWord.PROCEED),
    Row.HELD: HELD,
    Row.HELD_BY_PERSON: HELD_BY_PERSON,
    Row.KILLED: KILLED,
    Row.RELEASED: SPARED,
    Row.MUTED: MUTED,
    Row.DRY_RUN: DRY,
}


@pytest.mark.parametrize("row", list(Row))
def test_what_moves_is_what_the_table_says(row: Row) -> None:
    """Each cell of a person's columns: the functions do what the README shows, in every row."""
    standing = STANDINGS[row]
    assert row_of(standing) is row
    for action, given in GIVEN_OF_ACTION.items():
        until_ms = START_MS + 5000 if action is Action.MUTE else 0
        # A hold outlasts the one that stands only if that has an end, and only a mode that is not live can be left.
        if (row, given) == (Row.HELD_BY_PERSON, Given.PERSON_HOLD):
            standing = replace(HELD_BY_PERSON, stop=Stop(SwitchState.HELD, PERSON, 1, START_MS))
        elif given is Given.PERSON_ARM and row in (Row.HELD_BY_PERSON, Row.KILLED):
            standing = replace(STANDINGS[row], mode=Mode.MUTED)
        elif (row, given) == (Row.DRY_RUN, Given.PERSON_DRY_RUN):
            until_ms = START_MS + 5000
        else:
            standing = STANDINGS[row]
        found = by_person(standing, command(action, "c-1", until_ms=until_ms))
        target = TABLE.get((row, given))
        assert (row_of(found.after) if isinstance(found, Transition) else None) is target, (row, given)


@pytest.mark.parametrize("word", [VerdictWord.NO_DATA, VerdictWord.ERROR])
@pytest.mark.parametrize("decision", list(DecisionWord))
def test_blindness_neither_kills_nor_lifts(word: VerdictWord, decision: DecisionWord) -> None:
    said = with_parts(decision, scoped(TENANT, DecisionWord.KILL), word=word)
    for standing in (Standing(), HELD, HELD_BY_PERSON, KILLED, RELEASED):
        transition = by_detector(standing, said)
        assert transition is None or transition.state is SwitchState.HELD


def test_unknown_leaves_a_hold_in_place() -> None:
    assert moved(HELD, DecisionWord.UNKNOWN) is None
    assert moved(HELD, DecisionWord.UNKNOWN, word=VerdictWord.WATCHING) is None


def test_the_detector_lifts_its_own_hold_and_not_a_persons() -> None:
    lifted = moved(HELD, DecisionWord.PROCEED)
    assert lifted is not None
    assert (lifted.state, lifted.decision) == (SwitchState.OBSERVING, DecisionWord.PROCEED)
    assert moved(HELD_BY_PERSON, DecisionWord.PROCEED) is None


def test_a_kill_beats_a_persons_hold() -> None:
    transition = moved(HELD_BY_PERSON, DecisionWord.KILL)
    assert transition is not None
    assert transition.state is SwitchState.KILLED


@pytest.mark.parametrize("said", ALL_VERDICTS)
def test_no_verdict_moves_what_is_killed_released_or_muted(said: Verdict) -> None:
    said.scoped = [scoped(TENANT, DecisionWord.KILL)]
    for standing in (KILLED, RELEASED, MUTED):
        assert by_detector(standing, said) is None


def test_after_a_release_a_person_may_stop_again_but_the_detector_stays_out() -> None:
    again = asked(RELEASED, Action.HOLD)
    assert (again.state, again.after.armed) == (SwitchState.HELD, False)
    assert moved(again.after, DecisionWord.KILL) is None


def test_a_release_needs_something_to_release() -> None:
    for standing in (Standing(), STANDINGS[Row.WATCHING], MUTED, RELEASED, SPARED):
        assert refused(standing, Action.RELEASE) is CommandResult.NOTHING_TO_RELEASE


def test_a_killed_switch_takes_no_hold_and_no_mute() -> None:
    assert refused(KILLED, Action.HOLD) is CommandResult.ALREADY_KILLED
    assert refused(KILLED, Action.MUTE, until_ms=START_MS + 1) is CommandResult.RELEASE_FIRST
    assert refused(KILLED, Action.DRY_RUN) is CommandResult.RELEASE_FIRST


def test_an_older_verdict_told_again_moves_nothing_unless_it_kills() -> None:
    standing = Standing(number=2, watermark_ms=START_MS)
    assert moved(standing, DecisionWord.HOLD, at_ms=START_MS - 1) is None
    assert moved(standing, DecisionWord.HOLD, at_ms=START_MS) is not None
    assert moved(standing, DecisionWord.KILL, at_ms=START_MS - 1) is not None


class TestDryRun:
    def test_a_dry_kill_is_marked_and_latches_for_dry_verdicts(self) -> None:
        transition = moved(Standing(), DecisionWord.KILL, dry_run=True)
        assert transition is not None
        assert (transition.state, transition.dry_run, transition.decision) == ("killed", True, "kill")
        assert (transition.after.stops, transition.after.strictest) == (False, DecisionWord.PROCEED)
        assert moved(DRY_KILLED, DecisionWord.PROCEED, dry_run=True) is None

    @pytest.mark.parametrize(("decision", "state"), [("kill", SwitchState.KILLED), ("hold", SwitchState.HELD)])
    def test_a_live_stop_is_made_over_a_dry_one(self, decision: str, state: SwitchState) -> None:
        transition = moved(DRY_KILLED, DecisionWord(decision))
        assert transition is not None
        assert (transition.state, transition.dry_run, transition.after.dry) == (state, False, {})

    def test_a_persons_hold_over_a_dry_kill_is_live(self) -> None:
        transition = asked(DRY_KILLED, Action.HOLD)
        assert (transition.state, transition.dry_run) == (SwitchState.HELD, False)

    def test_a_dry_kill_can_be_released_and_keeps_the_detector_out(self) -> None:
        transition = asked(DRY_KILLED, Action.RELEASE)
        assert (transition.state, transition.after.armed, transition.after.dry) == ("released", False, {})

    def test_a_dry_verdict_may_lift_a_live_hold_but_not_worsen_it(self) -> None:
        assert moved(HELD, DecisionWord.KILL, dry_run=True) is None
        lifted = moved(HELD, DecisionWord.PROCEED, dry_run=True)
        assert lifted is not None
        assert not lifted.dry_run

    def test_in_the_mode_every_verdict_is_dry_and_a_persons_stop_is_not(self) -> None:
        transition = moved(DRY, DecisionWord.KILL)
        assert transition is not None
        assert (transition.dry_run, transition.after.stops) == (True, False)
        assert asked(transition.after, Action.KILL).after.stops

    def test_a_dry_stop_of_a_part_binds_nobody(self) -> None:
        after = settled(DRY, with_parts(DecisionWord.HOLD, scoped(TENANT, DecisionWord.KILL)))
        assert (after.parts, set(after.dry), after.strictest) == ({}, {WHOLE, TENANT}, DecisionWord.PROCEED)


class TestParts:
    def test_the_detector_kills_a_part_while_the_whole_is_held(self) -> None:
        after = settled(Standing(), with_parts(DecisionWord.HOLD, scoped(TENANT, DecisionWord.KILL)))
        assert (after.state, after.parts[TENANT].state) == (SwitchState.HELD, SwitchState.KILLED)
        assert (after.decision, after.strictest) == (DecisionWord.HOLD, DecisionWord.KILL)

    def test_a_part_that_is_the_whole_is_none(self) -> None:
        """Whatever stops the whole is the verdict's own decision, with its own evidence."""
        assert by_detector(Standing(), with_parts(DecisionWord.PROCEED, scoped(WHOLE, DecisionWord.KILL))) is None

    def test_its_hold_of_a_part_goes_when_it_is_clear_and_no_longer_listed_and_its_kill_stays(self) -> None:
        said = with_parts(DecisionWord.PROCEED, scoped(TENANT, DecisionWord.KILL), scoped(BUILD, DecisionWord.HOLD))
        after = settled(Standing(), said)
        assert set(after.parts) == {TENANT, BUILD}
        assert settled(after, verdict(DecisionWord.UNKNOWN)).parts == after.parts
        assert set(settled(after, verdict(DecisionWord.PROCEED)).parts) == {TENANT}

    def test_a_part_that_a_person_released_is_not_stopped_by_the_detector_again(self) -> None:
        said = with_parts(DecisionWord.PROCEED, scoped(TENANT, DecisionWord.KILL))
        released = asked(settled(Standing(), said), Action.RELEASE, scope=TENANT)
        assert (released.state, released.after.strictest) == (SwitchState.RELEASED, DecisionWord.PROCEED)
        assert by_detector(released.after, said) is None
        assert asked(released.after, Action.HOLD, scope=TENANT).state is SwitchState.HELD

    def test_a_release_of_the_whole_releases_every_part(self) -> None:
        held = settled(HELD, with_parts(DecisionWord.HOLD, scoped(TENANT, DecisionWord.KILL)))
        released = asked(held, Action.RELEASE)
        assert (released.after.parts, released.decision) == ({}, DecisionWord.PROCEED)

    def test_a_part_is_not_released_from_a_stop_of_the_whole_nor_the_whole_from_that_of_a_part(self) -> None:
        assert refused(HELD, Action.RELEASE, scope=TENANT) is CommandResult.NOTHING_TO_RELEASE
        part = asked(Standing(), Action.HOLD, scope=TENANT).after
        assert refused(part, Action.RELEASE) is CommandResult.NOTHING_TO_RELEASE

    def test_a_kill_of_the_whole_leaves_nothing_to_stop(self) -> None:
        assert refused(KILLED, Action.HOLD, scope=TENANT) is CommandResult.ALREADY_KILLED

    def test_parts_are_bounded_and_what_finds_no_room_stops_the_whole(self) -> None:
        standing = Standing()
        for number in range(PARTS_MAX):
            standing = asked(standing, Action.HOLD, scope=Scope(ring=f"ring-{number}")).after
        assert refused(standing, Action.HOLD, scope=TENANT) is CommandResult.TOO_MANY_PARTS
        after = settled(standing, with_parts(DecisionWord.PROCEED, scoped(TENANT, DecisionWord.KILL)))
        assert (after.state, len(after.parts)) == (SwitchState.HELD, PARTS_MAX)


class TestModes:
    def test_a_mute_lifts_the_detectors_holds_and_no_persons(self) -> None:
        standing = settled(HELD, with_parts(DecisionWord.HOLD, scoped(BUILD, DecisionWord.HOLD)))
        standing = asked(standing, Action.HOLD, scope=TENANT).after
        after = asked(standing, Action.MUTE, until_ms=START_MS + 1).after
        assert (after.state, set(after.parts)) == (SwitchState.MUTED, {TENANT})
        kept = asked(HELD_BY_PERSON, Action.MUTE, until_ms=START_MS + 1).after
        assert (kept.state, kept.mode) == (SwitchState.HELD, Mode.MUTED)

    def test_armed_again_the_next_verdict_binds(self) -> None:
        armed = asked(MUTED, Action.ARM)
        assert (armed.state, armed.after.mode_until_ms) == (SwitchState.OBSERVING, 0)
        assert settled(armed.after, verdict(DecisionWord.KILL)).state is SwitchState.KILLED

    def test_the_words_for_what_is_so_already(self) -> None:
        assert refused(MUTED, Action.MUTE, until_ms=START_MS + 1000) is CommandResult.ALREADY_MUTED
        assert refused(DRY, Action.DRY_RUN) is CommandResult.ALREADY_DRY
        assert refused(HELD, Action.ARM) is CommandResult.ALREADY_ARMED
        assert refused(RELEASED, Action.ARM) is CommandResult.DISARMED


class TestEnds:
    UNTIL_MS = START_MS + 1000

    def held(self, standing: Standing, **fields: Any) -> Standing:
        return asked(standing, Action.HOLD, until_ms=self.UNTIL_MS, **fields).after

    def test_nothing_ends_before_its_end(self) -> None:
        held = self.held(Standing())
        assert by_time(held, self.UNTIL_MS - 1, None) is None
        ended = by_time(held, self.UNTIL_MS, None)
        assert ended is not None
        assert (ended.state, ended.ended, ended.after.ends_ms) == (SwitchState.OBSERVING, Ended.HOLD, 0)

    @pytest.mark.parametrize("said", [None, verdict(DecisionWord.UNKNOWN), verdict(DecisionWord.HOLD)])
    def test_the_detectors_hold_beneath_stands_on_unless_it_is_clear(self, said: Verdict | None) -> None:
        ended = by_time(self.held(HELD), self.UNTIL_MS, said)
        assert ended is not None
        assert (ended.state, row_of(ended.after)) == (SwitchState.HELD, Row.HELD)
        clear = by_time(self.held(HELD), self.UNTIL_MS, verdict(DecisionWord.PROCEED))
        assert clear is not None
        assert clear.state is SwitchState.OBSERVING

    def test_nobody_is_told_to_proceed_for_a_moment(self) -> None:
        for decision in (DecisionWord.HOLD, DecisionWord.KILL):
            ended = by_time(self.held(Standing()), self.UNTIL_MS, verdict(decision))
            assert ended is not None
            assert ended.decision is DecisionWord.HOLD
        wary = by_time(self.held(Standing()), self.UNTIL_MS, verdict(DecisionWord.UNKNOWN, word=VerdictWord.WATCHING))
        assert wary is not None
        assert wary.decision is DecisionWord.UNKNOWN

    def test_a_hold_of_a_part_ends_and_the_other_stays(self) -> None:
        standing = asked(self.held(Standing(), scope=TENANT), Action.HOLD, scope=BUILD).after
        ended = by_time(standing, self.UNTIL_MS, None)
        assert ended is not None
        assert (ended.scope, set(ended.after.parts), ended.decision) == (TENANT, {BUILD}, DecisionWord.HOLD)

    def test_a_hold_is_prolonged_and_never_shortened(self) -> None:
        held = self.held(Standing())
        assert refused(held, Action.HOLD, until_ms=self.UNTIL_MS) is CommandResult.ALREADY_HELD
        assert asked(held, Action.HOLD, until_ms=self.UNTIL_MS + 1).after.ends_ms == self.UNTIL_MS + 1
        assert asked(held, Action.HOLD).after.ends_ms == 0
        assert refused(HELD_BY_PERSON, Action.HOLD, until_ms=self.UNTIL_MS) is CommandResult.ALREADY_HELD

    def test_modes_end_and_persons_stops_stay(self) -> None:
        ended = by_time(replace(MUTED, mode_until_ms=self.UNTIL_MS), self.UNTIL_MS, None)
        assert ended is not None
        assert (ended.state, ended.after.mode, ended.ended) == (SwitchState.OBSERVING, Mode.LIVE, Ended.MUTE)
        killed = asked(MUTED, Action.KILL).after
        kept = by_time(killed, self.UNTIL_MS, None)
        assert kept is not None
        assert (kept.state, kept.after.mode, kept.after.killed) == (SwitchState.KILLED, Mode.LIVE, True)

    def test_after_a_release_a_hold_that_ends_leaves_the_rollout_released(self) -> None:
        ended = by_time(self.held(RELEASED), self.UNTIL_MS, verdict(DecisionWord.KILL))
        assert ended is not None
        assert (ended.state, ended.after.armed) == (SwitchState.RELEASED, False)


def test_an_event_says_all_that_the_standing_is() -> None:
    """A restart knows only the last event: nothing of where the switch stands may be lost in it."""
    standing = settled(HELD, with_parts(DecisionWord.HOLD, scoped(TENANT, DecisionWord.KILL)))
    standing = asked(standing, Action.HOLD, scope=BUILD, until_ms=START_MS + 9).after
    for transition in (
        asked(standing, Action.HOLD, until_ms=START_MS + 5),
        asked(standing, Action.RELEASE, scope=BUILD),
        asked(standing, Action.RELEASE),
        asked(Standing(), Action.MUTE, until_ms=START_MS + 5),
        moved(DRY, DecisionWord.KILL),
    ):
        assert transition is not None
        event = switch_of(ROLLOUT, standing, transition, ("v", "p", "1"), "live", START_MS)
        event.number = transition.after.number
        assert standing_after(event, transition.after.digest) == transition.after
