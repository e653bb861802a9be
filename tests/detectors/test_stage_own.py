"""The whole stage where one tenant alone is harmed, or lies: killed there, held elsewhere, nobody else hurt."""

import pytest

from detectors.policy import Policies
from detectors.scope import Scope, hashed_tenant
from detectors.verdict import DecisionWord, Reason, Verdict
from ingest.windows import AtRisk, FirstCrash, Step
from support.cohorts import CELLS, T0, Harness, crash, rollout, step, window

TENANTS = 8
VICTIM = 5
OWNERS = [(group, group + 1000) for group in range(TENANTS)]


def first(owners: list[tuple[int, int]] = OWNERS, control: int = 1000) -> Step:
    """Return a first step in which every tenant has devices in both arms."""
    rows = [AtRisk(CELLS[0], group, 100, control) for group in range(TENANTS)]
    return step(0, 0, T0 + 250, window(full=True, at_risk=rows, exposed_total=100 * TENANTS, owners=owners))


def later(number: int, crashes: list[FirstCrash], total: int, owners: list[tuple[int, int]] | None = None) -> Step:
    at_ms = T0 + 250 * number
    said = window(crashes=crashes, crash_total=total, exposed_total=100 * TENANTS, owners=owners or [])
    return step(0, at_ms, at_ms + 250, said)


def died(number: int, group: int, exposed: int = 1, tenant: int | None = None) -> FirstCrash:
    named = group + 1000 if tenant is None else tenant
    return crash(T0 + 250 * number + 5, exposed, CELLS[0], group=group, tenant=named)


def harmed(
    harness: Harness, *, crashes: int = 20, owners: list[tuple[int, int]] = OWNERS, tenant: int | None = None
) -> None:
    """Feed a rollout in which the victim's exposed devices crash, and nobody else's."""
    harness.declare(rollout())
    harness.feed([first(owners)])
    harness.feed(later(number, [died(number, VICTIM, tenant=tenant)], number) for number in range(1, crashes + 1))


def parts(verdicts: list[Verdict]) -> set[tuple[Scope, DecisionWord]]:
    return {(part.scope, part.decision) for verdict in verdicts for part in verdict.scoped}


def test_harm_at_one_tenant_is_killed_there_and_held_elsewhere() -> None:
    harness = Harness(partitions=1)
    harmed(harness)
    last = harness.latest()
    assert (last.decision, last.reason) == (DecisionWord.HOLD, Reason.TOO_FEW_TENANTS)
    (part,) = last.scoped
    assert part.scope == Scope(tenant=hashed_tenant(VICTIM + 1000))
    assert (part.decision, part.reason) == (DecisionWord.KILL, Reason.KILL_EVIDENCE)
    assert part.log10_evidence >= 7.5
    assert "10^7.5 needed to kill within one tenant: 20 exposed and 0 control crashes" in part.sentence
    assert all(verdict.decision is not DecisionWord.KILL for verdict in harness.said())


def test_the_part_is_decided_on_after_as_many_crashes_as_its_own_evidence_takes() -> None:
    """At a share of 1 in 11 each crash gives a factor of 11 at most: 7.5 decades take eight or nine."""
    harness = Harness(partitions=1)
    harmed(harness)
    told = next(verdict for verdict in harness.said() if verdict.scoped)
    assert told.evidence.crashes_exposed in (8, 9, 10)


def test_control_crashes_of_the_same_tenant_speak_against_it_and_those_of_others_do_not() -> None:
    def told(group: int) -> int:
        harness = Harness(partitions=1)
        harness.declare(rollout())
        harness.feed([first()])
        total = 0
        for number in range(1, 21):
            # Ten of eleven crashes are in the control arm, as of a healthy rollout.
            found = [died(number, VICTIM), *(died(number, group, exposed=0) for _ in range(10))]
            total += len(found)
            harness.feed([later(number, found, total)])
        return len(harness.latest().scoped)

    assert (told(VICTIM), told(VICTIM + 1)) == (0, 1)


@pytest.mark.parametrize(
    "owners",
    [
        pytest.param([], id="a release before did not say"),
        pytest.param([(VICTIM, 0)], id="two tenants in one group"),
        pytest.param([(VICTIM, 4711)], id="another tenant's devices"),
    ],
)
def test_without_a_group_of_its_own_a_tenant_is_only_held(owners: list[tuple[int, int]]) -> None:
    harness = Harness(partitions=1)
    harmed(harness, owners=owners)
    assert harness.latest().decision is DecisionWord.HOLD
    assert parts(harness.said()) == set()


def test_a_liar_who_invents_crashes_has_it_killed_at_his_own_devices_and_at_nobody_elses() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout())
    harness.feed([first()])
    total = 0
    for number in range(1, 41):
        found = [died(number, VICTIM) for _ in range(3)]
        # Everybody's devices crash as ever: one exposed of eleven.
        found += [died(number, number % TENANTS, exposed=int(number % 11 == 0))] if number % TENANTS != VICTIM else []
        total += len(found)
        harness.feed([later(number, found, total)])
    assert parts(harness.said()) == {(Scope(tenant=hashed_tenant(VICTIM + 1000)), DecisionWord.KILL)}
    assert all(verdict.decision is not DecisionWord.KILL for verdict in harness.said())


def test_a_liar_in_anothers_group_can_only_keep_it_from_being_killed_alone() -> None:
    """A million devices without the update would make the victim's few crashes look like a catastrophe."""
    harness = Harness(partitions=1)
    harness.declare(rollout())
    harness.feed([first()])
    flood = AtRisk(CELLS[0], VICTIM, 100, 10**6)
    at_ms = T0 + 250
    mixed = window(at_risk=[flood], owners=[*OWNERS[:VICTIM], (VICTIM, 0)], exposed_total=800)
    harness.feed([step(0, at_ms, at_ms + 250, mixed)])
    harness.feed(later(number, [died(number, VICTIM)], number - 1) for number in range(2, 22))
    assert harness.latest().decision is DecisionWord.HOLD
    assert parts(harness.said()) == set()


def test_crashes_that_name_another_tenant_keep_the_group_from_speaking() -> None:
    harness = Harness(partitions=1)
    harmed(harness, tenant=77)
    assert harness.latest().decision is DecisionWord.HOLD
    assert parts(harness.said()) == set()


def test_where_one_tenants_word_may_kill_the_whole_no_part_is_decided_on() -> None:
    harness = Harness(partitions=1, policies=Policies({"tenants_least": 1}))
    harmed(harness)
    assert harness.latest().decision is DecisionWord.KILL
    assert parts(harness.said()) == set()


def test_fewer_devices_than_policy_demands_are_too_few_within_a_tenant_too() -> None:
    harness = Harness(partitions=1, policies=Policies({"devices_least": 21}))
    harmed(harness)
    assert harness.latest().decision is DecisionWord.HOLD
    assert parts(harness.said()) == set()


def test_nothing_is_decided_of_a_part_while_activity_is_late() -> None:
    harness = Harness(partitions=1)
    harmed(harness)
    at_ms = T0 + 250 * 21
    harness.feed([step(0, at_ms, at_ms + 250, crash_watermark_ms=at_ms + 600_000)])
    assert (harness.latest().reason, harness.latest().scoped) == (Reason.ACTIVITY_LATE, [])


@pytest.mark.parametrize("after", [1, 7, 9, 15])
def test_a_restart_goes_on_byte_for_byte(after: int) -> None:
    straight, broken = Harness(partitions=1), Harness(partitions=1)
    for harness in (straight, broken):
        harness.declare(rollout())
        harness.feed([first()])
    for number in range(1, 21):
        if number == after:
            broken.snapshot(0)
            broken.restart()
        for harness in (straight, broken):
            harness.feed([later(number, [died(number, VICTIM)], number)])
    assert broken.verdicts == straight.verdicts
    assert straight.latest().scoped
