"""Pages by the events that the real kill switch makes: holds, kills, parts, mutes, dry runs and two persons."""

import pytest

from detectors.scope import Scope
from detectors.verdict import DecisionWord
from signals.events import Action
from support.pager_rig import Rig
from support.switches import ROLLOUT, START_MS, SwitchRig, approval, command, verdict


class Both:
    """A kill switch and pagers on one log."""

    def __init__(self) -> None:
        self.switch = SwitchRig()
        self.switch.declare()
        self.pagers = Rig(beside=self.switch)

    def run(self, seconds: float = 1.0) -> None:
        self.switch.settle()
        self.pagers.run(seconds)

    def told(self) -> list[tuple[str, str]]:
        return self.pagers.sent("pager")


@pytest.fixture
def both() -> Both:
    return Both()


def test_a_kill_by_the_detector_is_released_by_two_persons(both: Both) -> None:
    both.switch.say(verdict(DecisionWord.HOLD))
    both.run()
    both.switch.say(verdict(DecisionWord.KILL, at_ms=START_MS + 1000))
    both.run()
    both.switch.ask(command(Action.RELEASE, "c-1"))
    both.run()
    assert both.told() == [("trigger", "high"), ("trigger", "critical")]
    both.switch.ask(approval("c-2", "c-1"))
    both.run()
    assert both.told()[-1] == ("resolve", "none")
    assert both.pagers.vendors["pager"].seen[-1].headline == "OVER: falcon-content 291 released"


def test_a_kill_of_a_part_stands_on_the_page_while_the_whole_is_held_and_let_go(both: Both) -> None:
    both.switch.ask(command(Action.KILL, "c-1", scope=Scope(os_build="22631")))
    both.run()
    assert both.told() == [("trigger", "critical")]
    both.switch.say(verdict(DecisionWord.HOLD))
    both.run()
    both.switch.say(verdict(DecisionWord.PROCEED, at_ms=START_MS + 1000))
    both.run(300)
    assert [step for step, _ in both.told() if step in ("trigger", "resolve")] == ["trigger"]
    both.switch.ask(command(Action.RELEASE, "c-2", scope=Scope(os_build="22631")))
    both.switch.ask(approval("c-3", "c-2", scope=Scope(os_build="22631")))
    both.run()
    assert both.told()[-1] == ("resolve", "none")


def test_a_dry_run_pages_nobody_and_a_hold_that_it_ends_is_over(both: Both) -> None:
    both.switch.say(verdict(DecisionWord.HOLD))
    both.run()
    both.switch.ask(command(Action.DRY_RUN, "c-1"))
    both.run()
    assert both.told() == [("trigger", "high"), ("resolve", "none")]
    both.switch.say(verdict(DecisionWord.KILL, at_ms=START_MS + 1000))
    both.run(200)
    assert both.told() == [("trigger", "high"), ("resolve", "none")]


def test_a_hold_with_an_end_is_over_when_it_ends(both: Both) -> None:
    both.switch.ask(command(Action.HOLD, "c-1", until_ms=START_MS + 60_000))
    both.run()
    assert both.told() == [("trigger", "high")]
    both.switch.clock.drive_to(START_MS + 61_000)
    both.run()
    assert both.told()[-1] == ("resolve", "none")


def test_no_person_is_on_any_page(both: Both) -> None:
    both.switch.ask(command(Action.KILL, "c-1"))
    both.run()
    said = str(both.pagers.vendors["pager"].seen) + str(both.pagers.vendors["chat"].seen)
    assert ROLLOUT in said
    for name in ("Ada", "ops-1", "desks"):
        assert name not in said
