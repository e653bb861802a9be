"""A client that is asked about a part that can't be: an error, not the answer for a part that nothing stops.

The leases come from the real stage, which reads the rings where they are declared.
"""

from typing import Final

import pytest

from detectors.scope import Scope
from detectors.verdict import DecisionWord
from ingest.clock import DrivenClock
from ingest.sight import Sight
from signals.client import UnknownPartError
from signals.client.book import Book
from signals.events import Action
from signals.killswitch.lease import LeaseTerms
from signals.killswitch.leasing import Granting
from signals.killswitch.verify import open_lease, parse_envelope
from support.switches import KEYS, ROLLOUT, SwitchRig, command, verdict

CANARY: Final = Scope(ring="canary")
TYPO: Final = Scope(ring="canry")


class Sees:
    """Always sees."""

    def sight(self) -> Sight:
        return Sight(seeing=True)


class RingRig(SwitchRig):
    """A stage that grants leases, and a client's book that is given all it signs."""

    granting = Granting(LeaseTerms(), Sees())
    clock: DrivenClock

    def __init__(self) -> None:
        super().__init__()
        self.book = Book("live", from_start=True)
        self._taken = {"killswitch": 0, "leases": 0}

    def go(self, decision: DecisionWord = DecisionWord.PROCEED) -> None:
        """Let half a minute pass and the detector speak, and give the client what was signed."""
        self.clock.drive_to(self.clock.now_ms() + 30_000)
        self.say(verdict(decision, at_ms=self.clock.now_ms()))
        self.settle()
        for event in self.events()[self._taken["killswitch"] :]:
            self._taken["killswitch"] += 1
            self.book.take_event(event)
        for record in self.records(self.source("leases"))[self._taken["leases"] :]:
            self._taken["leases"] += 1
            self.book.take_lease(open_lease(parse_envelope(record.value or b""), KEYS), self.clock.now_ms(), 0.0)

    def decision(self, target: Scope) -> DecisionWord:
        return self.book.decision(ROLLOUT, target, self.clock.now_ms(), 0.0).decision


@pytest.fixture
def rig() -> RingRig:
    return RingRig()


def test_a_ring_that_is_not_declared_is_an_error_and_no_way_round_a_stop(rig: RingRig) -> None:
    rig.declare(ROLLOUT, "canary", "broad")
    rig.ask(command(Action.HOLD, "c-1", scope=CANARY))
    rig.go()
    assert rig.decision(CANARY) is DecisionWord.HOLD
    assert rig.decision(Scope(ring="broad")) is DecisionWord.PROCEED
    with pytest.raises(UnknownPartError, match="no ring 'canry': it declares canary, broad"):
        rig.decision(TYPO)


def test_a_rollout_without_rings_has_none(rig: RingRig) -> None:
    rig.declare(ROLLOUT)
    rig.go()
    assert rig.decision(Scope()) is DecisionWord.PROCEED
    with pytest.raises(UnknownPartError, match="declares no rings, so leave ring out"):
        rig.decision(CANARY)


def test_what_is_no_build_is_an_error(rig: RingRig) -> None:
    rig.declare(ROLLOUT, "canary")
    rig.go()
    assert rig.decision(Scope(os_build="22631.3880")) is DecisionWord.PROCEED
    with pytest.raises(UnknownPartError, match=r"such as 22631\.3880"):
        rig.decision(Scope(os_build="win11"))


def test_rings_that_are_declared_later_stand_in_the_next_lease(rig: RingRig) -> None:
    rig.declare(ROLLOUT, "canary")
    rig.go()
    rig.declare(ROLLOUT, "canary", "early")
    rig.go()
    assert rig.decision(Scope(ring="early")) is DecisionWord.PROCEED


def test_a_kill_of_the_whole_is_told_whatever_the_part(rig: RingRig) -> None:
    rig.declare(ROLLOUT, "canary")
    rig.go()
    rig.go(DecisionWord.KILL)
    assert rig.decision(TYPO) is DecisionWord.KILL


def test_a_rollout_that_nobody_declared_leaves_rings_unchecked(rig: RingRig) -> None:
    rig.go()
    assert rig.decision(CANARY) is DecisionWord.PROCEED
