"""No sequence of verdicts, commands, approvals, ends, redeliveries, faults and restarts reaches a forbidden state.

What is held to after every step, read only from what left the stage:

- the events of a rollout are one chain from 1 on, and no number was given to two events;
- a live kill, of the whole or of a part, is left by a person's release only, and that release names two principals or
  is marked as break-glass;
- once a person has released the whole, the detector never moves the rollout again, nor a part that a person released;
- the detector makes no event while it is muted, and none that binds while it is in dry run;
- what a rollout system is told that knows nothing of parts is the strictest of the whole and every stop that stands;
- no end comes before its time, and none that has come is left out;
- nothing is obeyed twice, an event says all that the stage goes by, and the audit trail matches.
"""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from detectors.scope import WHOLE, Scope
from detectors.verdict import DecisionWord, Reason, ScopedDecision, Verdict, VerdictWord
from ingest.log.interface import Entry, LogUnavailableError
from signals.events import Action, Command, Mode, Switch, SwitchState
from signals.killswitch.audit_check import verify_chain
from signals.killswitch.standing import STOPS, decision_of, standing_after, strictest
from signals.killswitch.verify import Chain, VerifiedEvent, open_event, parse_envelope
from support.switches import KEYS, ROLLOUT, START_MS, SwitchRig, approval, command, verdict

OTHER = "r-fedcba9876543210"
TENANT, BUILD = Scope(tenant="acme"), Scope(os_build="22631")
# Mostly the one rollout and the verdict words that go with a decision: what matters is long histories of one switch.
ROLLOUTS = st.sampled_from([ROLLOUT, ROLLOUT, ROLLOUT, OTHER])
SCOPES = st.sampled_from([WHOLE, TENANT, BUILD])
OPERATORS = st.sampled_from(["ops-1", "ops-2"])
PART_WORDS = st.sampled_from([DecisionWord.HOLD, DecisionWord.KILL])
PARTS = st.lists(st.tuples(st.sampled_from([TENANT, BUILD]), PART_WORDS), max_size=2)
VERDICTS = st.tuples(
    st.sampled_from(DecisionWord),
    st.one_of(st.none(), st.none(), st.sampled_from(VerdictWord)),
    st.sampled_from([False, False, True]),
    ROLLOUTS,
    st.integers(0, 1000),
    st.one_of(st.just([]), PARTS),
)
COMMANDS = st.tuples(
    st.sampled_from([action for action in Action if action is not Action.APPROVE]),
    ROLLOUTS,
    SCOPES,
    st.sampled_from([0, 0, 30, 600]),
    OPERATORS,
    st.sampled_from([False, False, False, True]),
)


def parts_of(items: list[tuple[Scope, DecisionWord]]) -> list[ScopedDecision]:
    return [
        ScopedDecision(scope=scope, decision=word, reason=Reason.KILL_EVIDENCE, sentence="its own", log10_evidence=9.0)
        for scope, word in items
    ]


class SwitchModel(RuleBasedStateMachine):
    """Drives a real stage under a real Owner on the log's twin, and reads only what left it."""

    @initialize()
    def begin(self) -> None:
        self.rig = SwitchRig()
        self.rig.declare(ROLLOUT)
        self.rig.declare(OTHER)
        self.at_ms = START_MS
        self.said: list[Verdict] = []
        self.asked: list[Command] = []
        self.chain = Chain("live", from_start=True)
        self.histories: dict[str, _History] = {}
        self.events: list[VerifiedEvent] = []
        self.read_to = 0

    def next_id(self) -> str:
        return f"c-{len(self.asked)}"

    def put(self, asked: Command) -> None:
        self.asked.append(asked)
        self.rig.ask(asked)

    @rule(items=st.lists(VERDICTS, min_size=1, max_size=6), settle=st.booleans())
    def say(self, items: list[tuple[Any, ...]], settle: bool) -> None:
        for decision, word, dry_run, rollout, step_ms, parts in items:
            self.at_ms += step_ms
            said = verdict(decision, word=word, rollout=rollout, at_ms=self.at_ms, dry_run=dry_run)
            said.scoped = parts_of(parts)
            self.said.append(said)
            self.rig.say(said)
        if settle:
            self.rig.settle()

    @rule(items=st.lists(COMMANDS, min_size=1, max_size=4), settle=st.booleans())
    def ask(self, items: list[tuple[Any, ...]], settle: bool) -> None:
        for action, rollout, scope, seconds, principal, break_glass in items:
            until_ms = self.rig.clock.now_ms() + seconds * 1000 if seconds else 0
            asked = command(
                action,
                self.next_id(),
                rollout=rollout,
                scope=scope if action in (Action.HOLD, Action.KILL, Action.RELEASE) else WHOLE,
                until_ms=until_ms if action in (Action.HOLD, Action.MUTE, Action.DRY_RUN) else 0,
                principal=principal,
                break_glass=break_glass,
            )
            self.put(asked)
        if settle:
            self.rig.settle()

    @rule(rollout=ROLLOUTS, scope=SCOPES, principal=OPERATORS)
    def kill_and_ask_for_the_release(self, rollout: str, scope: Scope, principal: str) -> None:
        self.put(command(Action.KILL, self.next_id(), rollout=rollout, scope=scope, principal=principal))
        self.put(command(Action.RELEASE, self.next_id(), rollout=rollout, scope=scope, principal=principal))
        self.rig.settle()

    @precondition(lambda self: self.rig.place().pending)
    @rule(data=st.data(), principal=st.sampled_from(["ops-1", "ops-2", "lead-1"]))
    def approve_what_waits(self, data: st.DataObject, principal: str) -> None:
        """Approve as anybody, the one who asked included."""
        request = data.draw(st.sampled_from(self.rig.place().pending))
        said = {"rollout": request.rollout, "principal": principal}
        self.put(approval(self.next_id(), request.command_id, **said))
        self.rig.settle()

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), rollout=ROLLOUTS)
    def approve_what_may_not_wait(self, data: st.DataObject, rollout: str) -> None:
        approved = data.draw(st.sampled_from(self.asked)).command_id
        self.put(approval(self.next_id(), approved, rollout=rollout))

    @rule(rollout=ROLLOUTS, scope=SCOPES)
    def break_the_glass(self, rollout: str, scope: Scope) -> None:
        self.put(command(Action.RELEASE, self.next_id(), rollout=rollout, scope=scope, break_glass=True))
        self.rig.settle()

    @rule(rollout=ROLLOUTS, decision=st.sampled_from([DecisionWord.HOLD, DecisionWord.PROCEED]), word=PART_WORDS)
    def every_part_goes_bad_in_a_verdict(self, rollout: str, decision: DecisionWord, word: DecisionWord) -> None:
        self.every_part_goes_bad(rollout, decision, word)

    def every_part_goes_bad(self, rollout: str, decision: DecisionWord, word: DecisionWord) -> None:
        self.at_ms += 1
        said = verdict(decision, rollout=rollout, at_ms=self.at_ms)
        said.scoped = parts_of([(TENANT, word), (BUILD, word)])
        self.said.append(said)
        self.rig.say(said)
        self.rig.settle()

    @rule(
        rollout=ROLLOUTS,
        action=st.sampled_from([Action.HOLD, Action.MUTE, Action.DRY_RUN]),
        scope=SCOPES,
        goes_bad=st.booleans(),
    )
    def something_ends_soon(self, rollout: str, action: Action, scope: Scope, goes_bad: bool) -> None:
        until_ms = self.rig.clock.now_ms() + 30_000
        part = scope if action is Action.HOLD else WHOLE
        self.put(command(action, self.next_id(), rollout=rollout, scope=part, until_ms=until_ms))
        self.rig.settle()
        if goes_bad:
            self.every_part_goes_bad(rollout, DecisionWord.HOLD, DecisionWord.KILL)

    @precondition(lambda self: self.said)
    @rule(data=st.data())
    def say_again(self, data: st.DataObject) -> None:
        self.rig.say(data.draw(st.sampled_from(self.said)))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        self.rig.ask(data.draw(st.sampled_from(self.asked)))

    @rule()
    def garbage(self) -> None:
        self.rig.log.append([Entry(*self.rig.commands, b"x", b"{"), Entry(*self.rig.verdicts, b"x", b"\xff")])

    @rule()
    def restart(self) -> None:
        self.rig.restart()

    @rule()
    def lose_an_acknowledgement_and_die(self) -> None:
        # Garbage makes sure that there is something to write, so that the fault strikes.
        self.garbage()
        self.rig.log.lose_next_acknowledgement()
        with pytest.raises(LogUnavailableError, match="acknowledgement"):
            self.rig.settle()
        self.rig.restart()

    @rule()
    def lose_an_acknowledgement_and_try_again(self) -> None:
        self.garbage()
        self.rig.log.lose_next_acknowledgement()
        with pytest.raises(LogUnavailableError, match="acknowledgement"):
            self.rig.settle()
        self.rig.settle()

    @rule(seconds=st.sampled_from([10, 60, 180, 700, 4000]), settle=st.booleans())
    def time_passes(self, seconds: int, settle: bool) -> None:
        self.rig.clock.drive_to(self.rig.clock.now_ms() + seconds * 1000)
        if settle:
            self.rig.settle()

    @rule()
    def compaction(self) -> None:
        self.rig.log.maintain()

    @rule()
    def every_end_that_has_come_is_told(self) -> None:
        self.rig.settle()
        for rollout in (ROLLOUT, OTHER):
            ends_ms = self.rig.stage.standing(rollout).ends_ms
            assert not ends_ms or ends_ms > self.rig.clock.now_ms()

    @invariant()
    def nothing_forbidden_was_said(self) -> None:
        if not hasattr(self, "rig"):
            return
        for record in self.rig.log.read(self.rig.killswitch, self.read_to, max_records=100_000):
            self.read_to = record.offset + 1
            event = open_event(parse_envelope(record.value or b""), KEYS)
            self.events.append(event)
            # The same bytes again, after an acknowledgement was lost: the chain refuses anything else.
            if self.chain.accept(event):
                self.histories.setdefault(event.switch.rollout, _History()).take(event)
        for rollout, history in self.histories.items():
            # The stage may be ahead of what it has appended, never behind it.
            assert self.rig.stage.standing(rollout).number >= history.number
        entries = [record.value or b"" for record in self.rig.records(self.rig.audit)]
        assert verify_chain(entries, self.events).findings == []


class _History:
    """What one rollout's events have said so far, kept without the stage's own code."""

    def __init__(self) -> None:
        self.number = 0
        self.kills: set[Scope] = set()
        self.released: set[Scope] = set()
        self.commands: set[str] = set()
        self.mode = Mode.LIVE
        self.mode_until_ms = 0
        self.ends: dict[Scope, int] = {}
        self.disarmed = False
        self.whole: SwitchState | None = None

    def take(self, event: VerifiedEvent) -> None:
        switch = event.switch
        self.number = switch.number
        self._kills_latch(switch)
        self._detector_keeps_out(switch)
        self._ends_keep_their_time(switch)
        self._the_picture_is_whole(switch)
        if switch.command_id:
            assert switch.command_id not in self.commands
            self.commands.add(switch.command_id)
        self.mode, self.mode_until_ms, self.whole = switch.mode, switch.mode_until_ms, switch.whole
        assert standing_after(switch, event.digest).told() | {"decision": switch.decision} == {
            name: getattr(switch, name) for name in standing_after(switch, "").told()
        }

    def _kills_latch(self, switch: Switch) -> None:
        standing = {stop.scope for stop in switch.stops if stop.state is SwitchState.KILLED}
        if switch.whole is SwitchState.KILLED:
            standing.add(WHOLE)
        lifted = self.kills - standing
        if lifted:
            assert (switch.state, switch.cause) == (SwitchState.RELEASED, "person")
            assert switch.scope.whole or lifted == {switch.scope}
            if not switch.break_glass:
                assert switch.approved_by
                assert switch.principal
                assert switch.approved_by != switch.principal
        self.kills = standing

    def _detector_keeps_out(self, switch: Switch) -> None:
        if switch.cause == "detector":
            assert not self.disarmed
            assert switch.scope not in self.released
            # A hold of the whole was released: from then on the detector only kills.
            assert self.whole is not SwitchState.RELEASED or switch.state is SwitchState.KILLED
            assert self.mode is not Mode.MUTED
            if self.mode is Mode.DRY_RUN:
                # A stop that a verdict's own dry run lifts is lifted for all.
                assert switch.dry_run or switch.state not in STOPS
        if switch.cause == "person" and switch.state is SwitchState.RELEASED:
            self.released |= {switch.scope} if not (switch.scope.whole and switch.armed) else set()
        self.disarmed = self.disarmed or not switch.armed
        assert switch.armed is not self.disarmed

    def _ends_keep_their_time(self, switch: Switch) -> None:
        if switch.cause == "timer":
            ended = {"hold_ended": self.ends.get(switch.scope, 0)}.get(switch.reason, self.mode_until_ms)
            assert 0 < ended <= switch.decided_ms
        stops = [*switch.stops, *([switch.whole_stop] if switch.whole_stop else [])]
        self.ends = {stop.scope: stop.until_ms for stop in stops if stop.until_ms}

    def _the_picture_is_whole(self, switch: Switch) -> None:
        assert switch.whole is not None
        assert switch.whole_decision is not None
        assert (switch.whole in STOPS) == (switch.whole_stop is not None)
        words = [decision_of(stop.state, DecisionWord.HOLD) for stop in switch.stops]
        told = strictest([switch.whole_decision, *words])
        assert switch.decision is told or (switch.dry_run and switch.state in STOPS)
        if switch.dry_run:
            # What is marked moves no stop that binds.
            assert switch.scope not in {stop.scope for stop in switch.stops}


TestSwitchModel = SwitchModel.TestCase
TestSwitchModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
