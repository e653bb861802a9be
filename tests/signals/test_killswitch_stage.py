"""The stage under its Owner: what it writes, what it never writes twice, and what a restart finds."""

import msgspec
import pytest
from jsonschema import Draft7Validator

from detectors.verdict import DecisionWord
from ingest.log.interface import Entry, FencedError
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from signals.events import Action, SwitchState, place_decoder, record_decoder
from signals.killswitch.place import COMMANDS_REMEMBERED
from signals.killswitch.signing import PublicKeys, UnknownKeyError
from signals.killswitch.stage import SignalsStage
from support.switches import ROLLOUT, START_MS, STRANGER, SwitchRig, approval, command, verdict


@pytest.fixture
def rig() -> SwitchRig:
    made = SwitchRig()
    made.declare()
    return made


def test_a_kill_verdict_becomes_one_signed_event_in_the_same_step(rig: SwitchRig) -> None:
    rig.say(verdict(DecisionWord.KILL))
    assert rig.owner.step(0)
    [event] = rig.events()
    switch = event.switch
    assert (switch.number, switch.previous_digest, switch.state) == (1, "", SwitchState.KILLED)
    assert (switch.decision, switch.cause, switch.watermark_ms) == (DecisionWord.KILL, "detector", START_MS)
    assert switch.evidence is not None
    assert switch.evidence.log10_evidence == 7.2
    assert "10^7.2" in switch.sentence
    assert event.event.time == "2024-07-22T04:09:00.000Z"
    assert rig.metrics.value("killswitch_events_total", decision="kill") == 1


def test_the_state_record_holds_the_same_event_and_its_place(rig: SwitchRig) -> None:
    rig.say(verdict(DecisionWord.HOLD), verdict(DecisionWord.HOLD), verdict(DecisionWord.KILL))
    rig.settle()
    written = rig.records(rig.switches)
    assert [record_decoder.decode(record.value or b"").offsets["verdicts/0"] for record in written] == [1, 3]
    assert [record.key for record in written] == [ROLLOUT.encode()] * 2


def test_the_same_verdict_again_changes_nothing(rig: SwitchRig) -> None:
    for _ in range(5):
        rig.say(verdict(DecisionWord.KILL))
        rig.settle()
    assert len(rig.events()) == 1


def test_a_persons_word_carries_name_reason_and_the_update(rig: SwitchRig) -> None:
    rig.ask(command(Action.HOLD, "c-1"))
    rig.settle()
    [event] = rig.events()
    switch = event.switch
    assert (switch.cause, switch.name, switch.reason) == ("person", "Ada Lovelace", "seen on three desks")
    assert (switch.vendor, switch.product, switch.version) == ("crowdstrike", "falcon-content", "291")
    assert switch.command_id == "c-1"


def test_a_repeated_command_is_obeyed_once_across_releases_and_restarts(rig: SwitchRig) -> None:
    rig.ask(command(Action.KILL, "c-1"), command(Action.RELEASE, "c-2"), approval("c-3", "c-2"))
    rig.settle()
    rig.restart()
    rig.ask(command(Action.KILL, "c-1"), command(Action.RELEASE, "c-2"), approval("c-3", "c-2"))
    rig.settle()
    assert [event.switch.state for event in rig.events()] == [SwitchState.KILLED, SwitchState.RELEASED]


def test_a_refused_command_stays_refused_when_it_comes_again_after_a_restart(rig: SwitchRig) -> None:
    rig.ask(command(Action.RELEASE, "c-1"))
    rig.settle()
    rig.say(verdict(DecisionWord.KILL))
    rig.settle()
    rig.restart()
    rig.ask(command(Action.RELEASE, "c-1"))
    rig.settle()
    assert [event.switch.state for event in rig.events()] == [SwitchState.KILLED]
    assert rig.metrics.value("commands_refused_total", reason="nothing_to_release") == 1


def test_a_command_on_an_unknown_rollout_is_refused_and_said_so(rig: SwitchRig) -> None:
    rig.ask(command(Action.KILL, "c-1", rollout="r-typo"))
    rig.settle()
    assert rig.events() == []
    place = place_decoder.decode(rig.records(rig.switches)[-1].value or b"")
    assert place.commands == [("c-1", "unknown_rollout")]


def test_remembered_commands_are_bounded(rig: SwitchRig) -> None:
    for n in range(COMMANDS_REMEMBERED + 10):
        rig.ask(command(Action.RELEASE, f"c-{n}"))
    rig.settle()
    place = place_decoder.decode(rig.records(rig.switches)[-1].value or b"")
    assert len(place.commands) == COMMANDS_REMEMBERED


def test_a_restart_goes_on_numbering(rig: SwitchRig) -> None:
    for n, decision in enumerate([DecisionWord.HOLD, DecisionWord.PROCEED] * 5):
        rig.say(verdict(decision, at_ms=START_MS + n))
        rig.settle()
        rig.restart()
    assert [event.switch.number for event in rig.events()] == list(range(1, 11))


def test_events_that_the_state_does_not_know_are_read_before_numbering(rig: SwitchRig) -> None:
    """A log whose append is not atomic may keep the event and lose the state record."""
    rig.say(verdict(DecisionWord.HOLD), verdict(DecisionWord.KILL))
    rig.settle()
    torn = MemoryLog(topic_specs(rig.topics), rig.clock)
    for source in (rig.verdicts, rig.killswitch, rig.source("rollouts")):
        torn.append([Entry(*source, record.key, record.value) for record in rig.records(source)])
    first_state = rig.records(rig.switches)[0]
    torn.append([Entry(*rig.switches, first_state.key, first_state.value)])
    rig.log = torn
    rig.start()
    assert rig.stage.standing(ROLLOUT).number == 2
    rig.ask(command(Action.RELEASE, "c-1"), approval("c-2", "c-1"))
    rig.settle()
    assert [event.switch.number for event in rig.events()] == [1, 2, 3]
    # The trail was torn off as well: events without an entry are given one, each once.
    numbers = [entry.event_id for entry in rig.trail() if entry.event_id]
    assert numbers == [f"{ROLLOUT}/{number}" for number in (1, 2, 3)]


def test_a_second_owner_takes_over_and_the_first_writes_no_more(rig: SwitchRig) -> None:
    first = rig.owner
    rig.restart()
    rig.say(verdict(DecisionWord.KILL))
    with pytest.raises(FencedError):
        first.step(0)
    rig.settle()
    assert len(rig.events()) == 1


def test_what_cannot_be_read_is_dead_lettered_and_does_not_stop_the_stream(rig: SwitchRig) -> None:
    rig.log.append([Entry(*rig.verdicts, b"x", b"{"), Entry(*rig.commands, b"x", b"\xff\xfe")])
    rig.log.append(
        [Entry(*rig.verdicts, b"x", b'{"x":' + b"[" * 100_000), Entry(*rig.commands, b"x", b'{"name":"\xff"}')]
    )
    rig.say(verdict(DecisionWord.KILL))
    rig.settle()
    assert len(rig.events()) == 1
    assert len(rig.records(rig.source("deadletter"))) == 4
    assert rig.metrics.value("deadletters_total", reason="unreadable") == 4


def test_the_place_is_written_once_a_minute_so_that_old_commands_may_expire(rig: SwitchRig) -> None:
    rig.say(verdict(DecisionWord.PROCEED))
    rig.settle()
    rig.clock.drive_to(START_MS + 61_000)
    rig.say(verdict(DecisionWord.PROCEED))
    rig.settle()
    place = place_decoder.decode(rig.records(rig.switches)[-1].value or b"")
    assert place.offsets["verdicts/0"] == 2
    written = len(rig.records(rig.switches))
    rig.clock.drive_to(START_MS + 62_000)
    rig.say(verdict(DecisionWord.PROCEED))
    rig.settle()
    assert len(rig.records(rig.switches)) == written


def test_commands_that_aged_out_of_the_log_are_no_gap(rig: SwitchRig) -> None:
    rig.ask(command(Action.HOLD, "c-1"), command(Action.HOLD, "c-2"))
    rig.settle()
    rig.clock.drive_to(START_MS + 43 * 86_400_000)
    rig.log.maintain()
    rig.restart()
    assert rig.stage.standing(ROLLOUT).state is SwitchState.HELD


def test_an_event_by_a_stranger_in_the_log_stops_the_stage(rig: SwitchRig) -> None:
    rig.say(verdict(DecisionWord.KILL))
    rig.settle()
    stage = SignalsStage(rig.log, rig.topics, 0, STRANGER, PublicKeys([STRANGER.public]), rig.clock, rig.metrics)
    with pytest.raises(UnknownKeyError):
        stage.restore([])


def test_every_kind_of_event_is_a_cloud_event(rig: SwitchRig, cloudevents_schema: dict[str, object]) -> None:
    rig.say(verdict(DecisionWord.HOLD), verdict(DecisionWord.PROCEED, at_ms=START_MS + 1))
    rig.say(verdict(DecisionWord.KILL, at_ms=START_MS + 2))
    rig.settle()
    rig.ask(command(Action.RELEASE, "c-1"), approval("c-1a", "c-1"))
    rig.ask(command(Action.HOLD, "c-2"), command(Action.KILL, "c-3"))
    rig.settle()
    validator = Draft7Validator(cloudevents_schema, format_checker=Draft7Validator.FORMAT_CHECKER)
    events = rig.events()
    assert len(events) == 6
    for event in events:
        validator.validate(msgspec.json.decode(event.payload))
    assert len({(event.event.source, event.event.id) for event in events}) == 6


def test_a_release_keeps_the_detector_out_over_a_persons_next_hold_and_a_restart(rig: SwitchRig) -> None:
    rig.say(verdict(DecisionWord.KILL))
    rig.settle()
    rig.ask(command(Action.RELEASE, "c-1"), approval("c-1a", "c-1"), command(Action.HOLD, "c-2"))
    rig.settle()
    rig.restart()
    rig.say(verdict(DecisionWord.KILL, at_ms=START_MS + 1), verdict(DecisionWord.PROCEED, at_ms=START_MS + 2))
    rig.settle()
    last = rig.events()[-1].switch
    assert (last.number, last.state, last.armed) == (3, SwitchState.HELD, False)
