"""The detector's latest word, found again in the log; and the ends that come next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.verdict import DecisionWord
from signals.killswitch import said
from signals.killswitch.said import LatestVerdicts
from signals.killswitch.timers import Timers
from support.switches import ROLLOUT, START_MS, SwitchRig, verdict

OTHER = "r-fedcba9876543210"


@pytest.fixture
def rig() -> SwitchRig:
    made = SwitchRig()
    made.say(verdict(DecisionWord.HOLD), verdict(DecisionWord.KILL, rollout=OTHER))
    made.say(verdict(DecisionWord.PROCEED, at_ms=START_MS + 1))
    return made


def noted(rig: SwitchRig) -> LatestVerdicts:
    latest = LatestVerdicts(rig.log, rig.verdicts)
    for record in rig.records(rig.verdicts):
        latest.note((record.key or b"").decode(), record.offset)
    return latest


def test_the_latest_of_each_rollout_is_found(rig: SwitchRig) -> None:
    latest = noted(rig)
    found = latest.find(ROLLOUT)
    assert found is not None
    assert found.decision is DecisionWord.PROCEED
    assert latest.find("r-none") is None


def test_what_another_process_was_given_is_looked_up_and_what_is_still_to_come_is_not(rig: SwitchRig) -> None:
    latest = LatestVerdicts(rig.log, rig.verdicts)
    latest.begin(2)
    found = latest.find(ROLLOUT)
    assert found is not None
    assert found.decision is DecisionWord.HOLD


def test_a_verdict_that_compaction_took_is_none_for_a_later_one_comes(rig: SwitchRig) -> None:
    latest = LatestVerdicts(rig.log, rig.verdicts)
    latest.note(ROLLOUT, 0)
    rig.clock.drive_to(START_MS + 7 * 86_400_000)
    rig.log.maintain()
    assert latest.find(ROLLOUT) is None


def test_what_is_remembered_is_bounded(rig: SwitchRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(said, "ROLLOUTS_MAX", 1)
    latest = noted(rig)
    assert latest.find(ROLLOUT) is not None
    assert latest.find(OTHER) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=30), st.integers(0, 20))
def test_a_rollout_is_named_when_its_end_has_come_and_not_before(sets: list[tuple[str, int]], now_ms: int) -> None:
    timers, ends = Timers(), dict[str, int]()
    for rollout, ends_ms in sets:
        timers.set(rollout, ends_ms)
        ends[rollout] = ends_ms
    named = set()
    while (due := timers.due(now_ms)) is not None:
        named.add(due)
        timers.set(due, 0)
    assert named == {rollout for rollout, ends_ms in ends.items() if 0 < ends_ms <= now_ms}
