"""Leases as the stage writes them: signed, behind its events, and not before a restart has read everything."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.verdict import DecisionWord, Verdict
from ingest.events import encoder
from ingest.log.interface import Entry, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.sight import Sight
from signals.events import Action
from signals.killswitch.catchup import CatchUp
from signals.killswitch.lease import FORGET_SECONDS, LeaseTerms, whole_stopped
from signals.killswitch.leasing import Granting
from signals.killswitch.verify import Chain, VerifiedLease, open_lease, parse_envelope
from support.switches import KEYS, ROLLOUT, START_MS, SwitchRig, command, verdict

TERMS = LeaseTerms(seconds=60.0, verdict_seconds=150.0, heard_share_least=0.2)


class Sees:
    """A sight that a test drives."""

    seeing = True

    def sight(self) -> Sight:
        return Sight(seeing=self.seeing)


class LeaseRig(SwitchRig):
    """A stage that grants leases."""

    def __init__(self) -> None:
        self.sees = Sees()
        self.granting = Granting(TERMS, self.sees)
        super().__init__()
        self.declare()

    def later(self, seconds: float) -> None:
        self.clock.drive_to(self.clock.now_ms() + int(seconds * 1000))
        self.owner.step(0)
        self.owner.step(0)

    def leases(self) -> list[VerifiedLease]:
        found = self.records(self.source("leases"))
        return [open_lease(parse_envelope(record.value), KEYS) for record in found if record.value is not None]


def fine(at_ms: int = START_MS, decision: DecisionWord = DecisionWord.PROCEED) -> Verdict:
    return msgspec.structs.replace(verdict(decision, at_ms=at_ms), heard_share=0.9)


def test_a_verdict_brings_a_signed_lease_in_the_same_step() -> None:
    rig = LeaseRig()
    rig.say(fine())
    rig.owner.step(0)
    [lease] = rig.leases()
    assert (lease.event.id, lease.event.source) == (f"{ROLLOUT}/lease/{START_MS}", "/cordon/live")
    assert (lease.lease.number, lease.lease.expires_ms) == (0, START_MS + 60_000)


def test_the_lease_after_an_event_names_it_and_lies_behind_it() -> None:
    rig = LeaseRig()
    rig.say(fine())
    rig.settle()
    rig.say(fine(START_MS + 1, DecisionWord.HOLD))
    rig.settle()
    assert len(rig.leases()) == 1
    rig.say(fine(START_MS + 2))
    rig.settle()
    chain = Chain()
    for event in rig.events():
        chain.accept(event)
    assert chain.accept_lease(rig.leases()[-1], rig.clock.now_ms())
    assert rig.leases()[-1].lease.number == 2


def test_a_restart_grants_on_verdicts_from_before_it_once_it_has_read_the_rest() -> None:
    rig = LeaseRig()
    rig.say(fine())
    rig.settle()
    # The place is written, so that the verdict is not read again.
    rig.later(61)
    rig.ask(command(Action.KILL, "c-1"))
    rig.restart()
    before = len(rig.leases())
    rig.later(1)
    assert [event.switch.state for event in rig.events()] == ["killed"]
    assert len(rig.leases()) == before, "a kill that was asked for before the restart is obeyed before any lease"
    rig.ask(command(Action.KILL, "c-2"))
    rig.settle()
    other = LeaseRig()
    other.say(fine())
    other.settle()
    other.later(61)
    other.restart()
    other.later(1)
    assert other.leases()[-1].lease.issued_ms > START_MS + 61_000


def test_a_restart_that_does_not_see_grants_nothing() -> None:
    rig = LeaseRig()
    rig.say(fine())
    rig.settle()
    rig.sees.seeing = False
    rig.restart()
    for _ in range(10):
        rig.later(10)
    assert len(rig.leases()) == 1


def test_the_record_of_a_rollout_that_is_over_is_taken_back() -> None:
    rig = LeaseRig()
    rig.say(fine())
    rig.settle()
    for _ in range(3):
        rig.later(FORGET_SECONDS / 2)
    assert rig.records(rig.source("leases"))[-1].value is None


def test_a_lane_without_terms_has_no_leases() -> None:
    rig = SwitchRig()
    rig.say(fine())
    rig.settle()
    assert rig.records(rig.source("leases")) == []


class TestCatchUp:
    """What the log held a moment ago must have been applied."""

    def make(self) -> tuple[SwitchRig, CatchUp, list[int]]:
        rig, position = SwitchRig(), [0]
        return rig, CatchUp(rig.log, (rig.verdicts,), lambda _: position[0], rig.clock, 10), position

    def test_an_empty_log_has_been_read(self) -> None:
        _, catchup, _ = self.make()
        assert catchup.fresh()

    def test_what_lay_there_must_have_been_read(self) -> None:
        rig, catchup, position = self.make()
        rig.say(fine(), fine())
        assert not catchup.fresh()
        position[0] = 1
        assert not catchup.fresh()
        position[0] = 2
        assert catchup.fresh()

    def test_it_is_asked_again_in_time_and_old_answers_count_no_longer(self) -> None:
        rig, catchup, position = self.make()
        assert catchup.fresh()
        rig.say(fine())
        rig.clock.drive_to(START_MS + 4_000)
        assert catchup.fresh(), "seconds ago everything had been read"
        rig.clock.drive_to(START_MS + 10_001)
        assert not catchup.fresh()
        position[0] = 1
        assert catchup.fresh()

    def test_offsets_without_a_record_need_not_be_read(self) -> None:
        class Marked(MemoryLog):
            """Ends with the mark of a transaction, which is an offset and no record."""

            def bounds(self, source: TopicPartition) -> tuple[int, int]:
                first, end = super().bounds(source)
                return first, end + 1

        rig, position = SwitchRig(), [0]
        log = Marked(topic_specs(rig.topics), rig.clock)
        log.append([Entry(*rig.verdicts, ROLLOUT.encode(), encoder.encode(fine()))])
        catchup = CatchUp(log, (rig.verdicts,), lambda _: position[0], rig.clock, 10)
        assert not catchup.fresh()
        position[0] = 1
        assert catchup.fresh()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from(list(DecisionWord))),
        st.tuples(st.just("ask"), st.sampled_from([Action.HOLD, Action.KILL, Action.RELEASE])),
        st.tuples(st.just("later"), st.sampled_from([0.1, 5.0, 25.0, 200.0])),
        st.tuples(st.just("see"), st.booleans()),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=30,
)


@given(steps=STEPS)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_a_lease_is_of_the_last_event_and_never_of_a_stopped_or_unseen_rollout(
    steps: list[tuple[str, Any]],
) -> None:
    rig = LeaseRig()
    chain, asked, checked, followed = Chain(), 0, 0, 0
    for kind, what in steps:
        rig.clock.drive_to(rig.clock.now_ms() + 60)
        if kind == "say":
            rig.say(fine(rig.clock.now_ms(), what))
        elif kind == "ask":
            asked += 1
            rig.ask(command(what, f"c-{asked}"))
        elif kind == "see":
            rig.sees.seeing = what
        elif kind == "restart":
            rig.restart()
        rig.later(what if kind == "later" else 0)
        events = rig.events()
        for event in events[followed:]:
            chain.accept(event)
        followed = len(events)
        leases = rig.leases()
        for lease in leases[checked:]:
            assert rig.sees.seeing
            assert not whole_stopped(events[-1].switch if events else None)
            assert lease.lease.number == len(events)
            assert chain.accept_lease(lease, rig.clock.now_ms())
        checked = len(leases)
