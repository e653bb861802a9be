"""What people may do through the stage: two for a release of a kill, ends, modes, and what each leaves in the trail."""

import logging
from typing import Any

import pytest

from detectors.scope import Scope
from detectors.verdict import DecisionWord
from ingest.log.interface import LogUnavailableError, Record, TopicPartition
from signals.events import Action, SwitchState
from signals.killswitch.approvals import PENDING_MAX, PENDING_SECONDS
from signals.killswitch.people import HOLD_DAYS_MAX, Rules
from support.switches import ROLLOUT, START_MS, SwitchRig, approval, command, verdict

TENANT = Scope(tenant="acme")
MINUTE_MS = 60_000


@pytest.fixture
def rig() -> SwitchRig:
    made = SwitchRig()
    made.declare()
    return made


@pytest.fixture
def killed(rig: SwitchRig) -> SwitchRig:
    rig.ask(command(Action.KILL, "kill"))
    rig.settle()
    return rig


def asked(rig: SwitchRig, action: Action, command_id: str, **fields: Any) -> str:
    """Ask, and return what became of it."""
    made = approval(command_id, **fields) if action is Action.APPROVE else command(action, command_id, **fields)
    rig.ask(made)
    rig.settle()
    return dict(rig.place().commands)[command_id]


def states(rig: SwitchRig) -> list[str]:
    return [event.switch.state.value for event in rig.events()]


class TestTwoPersons:
    def test_a_release_of_a_kill_waits_and_another_persons_approval_makes_it(self, killed: SwitchRig) -> None:
        assert asked(killed, Action.RELEASE, "ask", reason="the driver was mended") == "pending"
        assert states(killed) == ["killed"]
        [request] = killed.place().pending
        assert (request.command_id, request.principal, request.rollout) == ("ask", "ops-1", ROLLOUT)
        assert asked(killed, Action.APPROVE, "yes", approves="ask") == "applied"
        switch = killed.events()[-1].switch
        assert (switch.state, switch.principal, switch.approved_by) == (SwitchState.RELEASED, "ops-1", "lead-1")
        assert (switch.action, switch.reason) == (Action.APPROVE, "the driver was mended")
        assert "Ada Lovelace" in switch.sentence
        assert "Grace Hopper approved it" in switch.sentence
        assert killed.place().pending == []
        assert dict(killed.place().commands)["ask"] == "applied"

    def test_nobody_approves_what_they_asked_for(self, killed: SwitchRig) -> None:
        asked(killed, Action.RELEASE, "ask")
        assert asked(killed, Action.APPROVE, "me", approves="ask", principal="ops-1") == "same_person"
        assert states(killed) == ["killed"]

    def test_roles_are_checked_where_it_loosens(self, killed: SwitchRig) -> None:
        asked(killed, Action.RELEASE, "ask")
        assert asked(killed, Action.APPROVE, "op", approves="ask", roles=["operator"]) == "not_allowed"
        assert asked(killed, Action.APPROVE, "anon", approves="ask", principal="") == "not_allowed"
        for action in (Action.RELEASE, Action.MUTE, Action.DRY_RUN, Action.ARM):
            assert asked(killed, action, f"v-{action.value}", roles=["viewer"]) == "not_allowed"
        assert asked(killed, Action.RELEASE, "old", roles=[], principal="") == "not_allowed"

    def test_a_stop_from_a_gateway_that_names_no_roles_is_obeyed(self, rig: SwitchRig) -> None:
        assert asked(rig, Action.HOLD, "old", roles=[], principal="") == "applied"
        assert asked(rig, Action.KILL, "viewer", roles=["viewer"]) == "not_allowed"

    def test_a_request_outlives_a_restart_and_ends_after_an_hour(self, killed: SwitchRig) -> None:
        asked(killed, Action.RELEASE, "ask")
        killed.restart()
        assert asked(killed, Action.RELEASE, "again") == "already_pending"
        killed.clock.drive_to(START_MS + PENDING_SECONDS * 1000)
        killed.settle()
        assert killed.place().pending == []
        assert dict(killed.place().commands)["ask"] == "no_such_request"
        assert asked(killed, Action.APPROVE, "late", approves="ask") == "no_such_request"
        assert "request_ended" in [entry.action for entry in killed.trail()]

    def test_a_stop_that_comes_in_between_voids_the_request(self, rig: SwitchRig) -> None:
        rig.ask(command(Action.KILL, "kill", scope=TENANT))
        assert asked(rig, Action.RELEASE, "ask", scope=TENANT) == "pending"
        rig.say(verdict(DecisionWord.KILL))
        rig.settle()
        rig.restart()
        assert asked(rig, Action.APPROVE, "yes", approves="ask") == "no_such_request"
        assert [entry.action for entry in rig.trail() if entry.command_id == "ask"] == ["release", "request_void"]

    def test_an_approval_names_a_request_on_its_own_rollout(self, killed: SwitchRig) -> None:
        other = "r-fedcba9876543210"
        killed.declare(other)
        asked(killed, Action.RELEASE, "ask")
        assert asked(killed, Action.APPROVE, "other", approves="ask", rollout=other) == "no_such_request"
        assert asked(killed, Action.APPROVE, "typo", approves="aks") == "no_such_request"

    def test_a_hold_is_released_by_one(self, rig: SwitchRig) -> None:
        asked(rig, Action.HOLD, "hold")
        assert asked(rig, Action.RELEASE, "release") == "applied"

    def test_a_release_of_a_held_whole_with_a_killed_part_needs_two(self, rig: SwitchRig) -> None:
        rig.ask(command(Action.HOLD, "hold"), command(Action.KILL, "part", scope=TENANT))
        assert asked(rig, Action.RELEASE, "ask") == "pending"
        assert asked(rig, Action.APPROVE, "yes", approves="ask") == "applied"
        assert rig.events()[-1].switch.stops == []

    def test_by_setting_one_is_enough(self) -> None:
        rig = SwitchRig(rules=Rules(release_approvals=0))
        rig.declare()
        rig.ask(command(Action.KILL, "kill"))
        assert asked(rig, Action.RELEASE, "release") == "applied"

    def test_requests_are_bounded(self, rig: SwitchRig) -> None:
        for number in range(PENDING_MAX + 1):
            name = f"r-{number:016x}"
            rig.declare(name)
            rig.ask(command(Action.KILL, f"k-{number}", rollout=name))
            rig.ask(command(Action.RELEASE, f"r-{number}", rollout=name))
        rig.settle()
        assert len(rig.place().pending) == PENDING_MAX
        assert dict(rig.place().commands)[f"r-{PENDING_MAX}"] == "too_many_pending"


class TestBreakGlass:
    def test_it_releases_at_once_and_is_loud(self, killed: SwitchRig, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.ERROR):
            assert asked(killed, Action.RELEASE, "now", break_glass=True) == "applied"
        switch = killed.events()[-1].switch
        assert (switch.state, switch.break_glass, switch.approved_by) == (SwitchState.RELEASED, True, "")
        assert switch.sentence.startswith("BREAK-GLASS")
        assert killed.metrics.value("break_glass_total") == 1
        assert "GLASS BROKEN" in caplog.text
        assert killed.trail()[-1].sentence == switch.sentence

    def test_where_one_is_enough_no_glass_is_broken(self, rig: SwitchRig) -> None:
        asked(rig, Action.HOLD, "hold")
        asked(rig, Action.RELEASE, "release", break_glass=True)
        assert not rig.events()[-1].switch.break_glass
        assert rig.metrics.value("break_glass_total") == 0

    def test_it_voids_the_request_that_waited(self, killed: SwitchRig) -> None:
        asked(killed, Action.RELEASE, "ask")
        asked(killed, Action.RELEASE, "now", break_glass=True)
        asked(killed, Action.KILL, "again")
        assert asked(killed, Action.APPROVE, "late", approves="ask") == "no_such_request"


class TestEnds:
    def test_a_hold_ends_at_its_end_in_an_event_of_the_timer(self, rig: SwitchRig) -> None:
        asked(rig, Action.HOLD, "hold", scope=TENANT, until_ms=START_MS + MINUTE_MS)
        held = rig.events()[-1].switch
        assert (held.until_ms, held.decision, held.whole) == (START_MS + MINUTE_MS, "hold", "observing")
        rig.clock.drive_to(START_MS + MINUTE_MS - 1)
        rig.settle()
        assert len(rig.events()) == 1
        rig.clock.drive_to(START_MS + MINUTE_MS)
        rig.settle()
        ended = rig.events()[-1].switch
        assert (ended.cause, ended.reason, ended.scope) == ("timer", "hold_ended", TENANT)
        assert (ended.state, ended.decision, ended.stops) == (SwitchState.OBSERVING, "proceed", [])

    def test_an_end_that_came_while_nobody_ran_is_made_up_once(self, rig: SwitchRig) -> None:
        asked(rig, Action.HOLD, "hold", until_ms=START_MS + MINUTE_MS)
        rig.clock.drive_to(START_MS + 10 * MINUTE_MS)
        for _ in range(3):
            rig.restart()
            rig.settle()
        assert [event.switch.cause for event in rig.events()] == ["person", "timer"]

    def test_the_detectors_latest_word_binds_when_a_mute_ends(self, rig: SwitchRig) -> None:
        asked(rig, Action.MUTE, "mute", until_ms=START_MS + MINUTE_MS)
        rig.say(verdict(DecisionWord.PROCEED), verdict(DecisionWord.KILL, at_ms=START_MS + 1))
        rig.settle()
        assert states(rig) == ["muted"]
        rig.clock.drive_to(START_MS + MINUTE_MS)
        rig.settle()
        assert states(rig) == ["muted", "observing", "killed"]
        assert rig.events()[-1].switch.evidence is not None

    def test_and_by_arm_over_a_restart_and_what_compaction_left(self, rig: SwitchRig) -> None:
        asked(rig, Action.MUTE, "mute", until_ms=START_MS + 60 * MINUTE_MS)
        for step in range(5):
            rig.say(verdict(DecisionWord.PROCEED, at_ms=START_MS + step))
        rig.say(verdict(DecisionWord.KILL, at_ms=START_MS + 9))
        rig.settle()
        rig.clock.drive_to(START_MS + 2 * MINUTE_MS)
        rig.say(verdict(DecisionWord.HOLD, rollout="r-fedcba9876543210"))
        rig.settle()
        rig.log.maintain()
        rig.restart()
        assert asked(rig, Action.ARM, "arm") == "applied"
        assert [event.switch.state for event in rig.events() if event.switch.rollout == ROLLOUT] == [
            SwitchState.MUTED,
            SwitchState.OBSERVING,
            SwitchState.KILLED,
        ]

    def test_a_log_that_can_not_be_read_when_a_mute_is_undone_loses_nothing(
        self, rig: SwitchRig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The verdict that binds again is read from the log: the command comes again until it can be."""
        asked(rig, Action.MUTE, "mute", until_ms=START_MS + MINUTE_MS)
        rig.say(verdict(DecisionWord.KILL))
        rig.settle()
        rig.ask(command(Action.ARM, "arm"))
        read, refused = rig.log.read, iter([True, True])

        def unreadable(source: TopicPartition, *arguments: Any, **named: Any) -> list[Record]:
            if source == rig.verdicts and next(refused, False):
                raise LogUnavailableError("away")
            return read(source, *arguments, **named)

        monkeypatch.setattr(rig.log, "read", unreadable)
        for _ in range(2):
            with pytest.raises(LogUnavailableError):
                rig.settle()
        rig.settle()
        assert states(rig) == ["muted", "observing", "killed"]
        assert dict(rig.place().commands)["arm"] == "applied"
        assert [entry.result for entry in rig.trail()] == ["applied"] * 3

    @pytest.mark.parametrize(
        ("action", "until_ms", "result"),
        [
            (Action.MUTE, 0, "needs_end"),
            (Action.MUTE, START_MS + 24 * 60 * MINUTE_MS + 1, "too_long"),
            (Action.MUTE, START_MS + 24 * 60 * MINUTE_MS, "applied"),
            (Action.HOLD, START_MS, "too_late"),
            (Action.HOLD, START_MS + HOLD_DAYS_MAX * 86_400_000 + 1, "too_long"),
            (Action.HOLD, 1 << 62, "too_long"),
            (Action.DRY_RUN, 0, "applied"),
            (Action.KILL, START_MS + MINUTE_MS, "takes_no_end"),
            (Action.ARM, START_MS + MINUTE_MS, "takes_no_end"),
        ],
    )
    def test_what_may_end_and_when(self, rig: SwitchRig, action: Action, until_ms: int, result: str) -> None:
        assert asked(rig, action, "c-1", until_ms=until_ms) == result

    @pytest.mark.parametrize("action", [Action.MUTE, Action.DRY_RUN, Action.ARM])
    def test_modes_are_for_the_whole(self, rig: SwitchRig, action: Action) -> None:
        assert asked(rig, action, "c-1", scope=TENANT, until_ms=START_MS + 1) == "whole_only"


def test_the_trail_names_every_word_and_what_became_of_it(killed: SwitchRig) -> None:
    asked(killed, Action.HOLD, "hold")
    asked(killed, Action.RELEASE, "ask")
    asked(killed, Action.APPROVE, "me", approves="ask", principal="ops-1")
    asked(killed, Action.APPROVE, "yes", approves="ask")
    killed.say(verdict(DecisionWord.KILL, rollout="r-fedcba9876543210"))
    killed.settle()
    said = [(entry.actor, entry.action, entry.principal, entry.result) for entry in killed.trail()]
    assert said == [
        ("person", "kill", "ops-1", "applied"),
        ("person", "hold", "ops-1", "already_killed"),
        ("person", "release", "ops-1", "pending"),
        ("person", "approve", "ops-1", "same_person"),
        ("person", "approve", "lead-1", "applied"),
        ("detector", "verdict", "", "applied"),
    ]
    digests = {event.event.id: event.digest for event in killed.events()}
    assert {entry.event_id: entry.event_digest for entry in killed.trail() if entry.event_id} == digests
