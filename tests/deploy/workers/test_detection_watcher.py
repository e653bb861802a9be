"""A detection share says when it is blind, and what it is not sure of."""

from collections.abc import Callable, Sequence

from deploy.workers.detection import Watcher
from ingest.clock import DrivenClock
from support.cohorts import Harness, rollout, steady
from support.switches import START_MS


class Turns:
    """A stage under a watcher with a timer of the test's own."""

    def __init__(self, doubts: Callable[[], Sequence[str]] | None = None, blind_seconds: float | None = 10.0) -> None:
        self.now = 100.0
        self.harness = Harness(partitions=1)
        self.harness.declare(rollout())
        self.watcher = Watcher(
            self.harness.stage,
            DrivenClock(START_MS),
            blind_seconds=blind_seconds,
            doubts=doubts,
            timer=lambda: self.now,
        )

    def pass_seconds(self, seconds: float) -> list[str]:
        """Let time pass, have the watcher look, and return what was said."""
        before = len(self.harness.verdicts)
        self.now += seconds
        self.watcher.turn(False)
        self.harness.collect()
        return [one.reason.value for one in self.harness.said()[before:]]


def test_no_step_for_long_enough_is_said_as_blindness_and_a_step_ends_it() -> None:
    turns = Turns()
    turns.harness.feed([steady()])
    assert turns.pass_seconds(1) == []
    assert turns.pass_seconds(10) == []
    assert turns.pass_seconds(0.1) == ["no_telemetry"]
    assert turns.pass_seconds(10) == []
    assert Turns(blind_seconds=None).pass_seconds(1000) == []


def test_doubts_are_asked_for_once_a_second_and_take_health_away() -> None:
    doubts: list[str] = []
    asked: list[int] = []

    def ask() -> Sequence[str]:
        asked.append(1)
        return doubts

    turns = Turns(ask)
    turns.harness.feed([steady()])
    for _ in range(10):
        turns.pass_seconds(0.1)
    assert 1 <= len(asked) <= 2
    doubts.append("grouping/3 silent")
    assert turns.pass_seconds(1)
    assert "grouping/3 silent" in turns.harness.latest().sentence
