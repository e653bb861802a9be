"""Devices coming back are on a page's updates, and the page ends when almost all of them are back."""

from msgspec.structs import replace

from detectors.recovery import Recovery, RecoveryRow
from detectors.verdict import DecisionWord, VerdictWord
from ingest.rollouts import Bound, Ring, Rollout
from signals.events import SwitchState
from signals.pagers.content import body, recovery_of
from signals.pagers.words import Step
from support.pager_rig import Rig, evidence
from support.pages import PAGE
from support.switches import START_MS, verdict

MINUTE = 60


def say(rig: Rig, minutes: int, recovery: Recovery | None) -> None:
    """Say a verdict so many minutes after the first crash, and let the pagers work for a minute."""
    said = verdict(DecisionWord.KILL, word=VerdictWord.REGRESSED, at_ms=START_MS + minutes * 60_000)
    said.evidence, said.recovery = evidence(), recovery
    rig.say("verdicts", said)
    rig.run(MINUTE)


def killed() -> Rig:
    rig = Rig()
    rig.event(SwitchState.KILLED)
    rig.run(1)
    return rig


def test_news_of_recovery_is_an_update_and_wakes_nobody() -> None:
    rig = killed()
    for minutes in range(1, 12):
        say(rig, minutes, Recovery(silent=40 - minutes, looping=2, recovered=minutes))
    assert [step for step, _ in rig.sent("pager")] == ["trigger", "update", "update"]
    assert "Recovery: 10 recovered, 2 still crashing, 30 silent" in rig.vendors["pager"].seen[-1].lines
    assert len(rig.vendors["pager"].woken) == 1


def test_a_page_ends_when_almost_all_are_back_and_the_switch_still_stands() -> None:
    rig = killed()
    say(rig, 50, Recovery(silent=3, looping=0, recovered=97))
    assert [step for step, _ in rig.sent("pager")] == ["trigger"]
    say(rig, 51, Recovery(silent=1, looping=0, recovered=99))
    say(rig, 52, Recovery(silent=1, looping=0, recovered=99))
    rig.run(5 * MINUTE)
    assert rig.sent("pager")[-1] == ("resolve", "none")
    assert "devices came back" in rig.vendors["pager"].seen[-1].lines[0]
    # A later move of the switch opens it again, under a new key.
    rig.event(SwitchState.KILLED)
    rig.run(1)
    assert rig.sent("pager")[-1] == ("trigger", "critical")
    assert len(rig.vendors["pager"].opened) == 2


def test_soon_after_the_first_crash_nothing_is_over() -> None:
    """Those that fell silent at once do not count as silent yet."""
    rig = killed()
    say(rig, 20, Recovery(silent=0, looping=0, recovered=9))
    rig.run(10 * MINUTE)
    assert ("resolve", "none") not in rig.sent("pager")


def test_only_declared_rings_are_named_and_no_tenant_is() -> None:
    rollout = Rollout(
        rollout="r", vendor="v", product="p", update_kind="content", version="1", origin_ms=0, bound=Bound.DECLARED,
        rings=[Ring(name="canary"), Ring(name="early")],
    )  # fmt: skip
    recovery = Recovery(silent=4, looping=0, recovered=6, rows=[
        RecoveryRow(ring="canary", tenant="#5e", silent=1, recovered=3),
        RecoveryRow(ring="canary", tenant="", recovered=2),
        RecoveryRow(ring="Acme laptops", tenant="#77", silent=3, recovered=1),
    ])  # fmt: skip
    said = recovery_of(recovery, rollout)
    assert said == "6 recovered, 0 still crashing, 4 silent (canary 5 of 6 back)"
    assert f"Recovery: {said}" in body(replace(PAGE, recovery=said), Step.UPDATE)
    assert recovery_of(recovery, None) == "6 recovered, 0 still crashing, 4 silent"
    assert recovery_of(None, rollout) == ""
