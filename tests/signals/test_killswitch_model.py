"""No sequence of verdicts, commands, redeliveries, faults and restarts reaches a forbidden state."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from detectors.verdict import DecisionWord, Verdict, VerdictWord
from ingest.log.interface import Entry, LogUnavailableError
from signals.events import Action, Command, SwitchState
from signals.killswitch.verify import Chain
from support.switches import ROLLOUT, START_MS, SwitchRig, command, verdict

OTHER = "r-fedcba9876543210"
# Mostly the one rollout and the verdict words that go with a decision: what matters is long histories of one switch.
ROLLOUTS = st.sampled_from([ROLLOUT, ROLLOUT, ROLLOUT, OTHER])
VERDICTS = st.tuples(
    st.sampled_from(DecisionWord),
    st.one_of(st.none(), st.none(), st.sampled_from(VerdictWord)),
    st.sampled_from([False, False, True]),
    ROLLOUTS,
    st.integers(0, 1000),
)


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

    @rule(items=st.lists(VERDICTS, min_size=1, max_size=6), settle=st.booleans())
    def say(self, items: list[tuple[DecisionWord, VerdictWord | None, bool, str, int]], settle: bool) -> None:
        for decision, word, dry_run, rollout, step_ms in items:
            self.at_ms += step_ms
            self.said.append(verdict(decision, word=word, rollout=rollout, at_ms=self.at_ms, dry_run=dry_run))
            self.rig.say(self.said[-1])
        if settle:
            self.rig.settle()

    @rule(items=st.lists(st.tuples(st.sampled_from(Action), ROLLOUTS), min_size=1, max_size=4), settle=st.booleans())
    def ask(self, items: list[tuple[Action, str]], settle: bool) -> None:
        for action, rollout in items:
            self.asked.append(command(action, f"c-{len(self.asked)}", rollout=rollout))
            self.rig.ask(self.asked[-1])
        if settle:
            self.rig.settle()

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

    @rule(minutes=st.integers(1, 3))
    def time_passes(self, minutes: int) -> None:
        self.rig.clock.drive_to(self.rig.clock.now_ms() + minutes * 60_000)
        self.rig.settle()

    @rule()
    def compaction(self) -> None:
        self.rig.log.maintain()

    @invariant()
    def events_are_one_chain_and_kill_latches(self) -> None:
        if not hasattr(self, "rig"):
            return
        chain = Chain("live", from_start=True)
        live: dict[str, SwitchState] = {}
        disarmed: set[str] = set()
        commands: set[str] = set()
        for event in self.rig.events():
            if not chain.accept(event):
                # The same bytes again, after an acknowledgement was lost: the chain refuses anything else.
                continue
            switch = event.switch
            if live.get(switch.rollout) is SwitchState.KILLED:
                assert (switch.state, switch.cause) == (SwitchState.RELEASED, "person")
            if switch.rollout in disarmed:
                assert switch.cause == "person"
            if switch.command_id:
                assert switch.command_id not in commands
                commands.add(switch.command_id)
            if switch.state is SwitchState.KILLED:
                assert switch.decision is DecisionWord.KILL
            if switch.state is SwitchState.RELEASED:
                disarmed.add(switch.rollout)
            if not switch.dry_run:
                live[switch.rollout] = switch.state


TestSwitchModel = SwitchModel.TestCase
TestSwitchModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
