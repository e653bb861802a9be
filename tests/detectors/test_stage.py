"""The detection stage: a bad rollout dies, a healthy one never, and nothing is said that is not known."""

import dataclasses
import itertools

import pytest

from detectors.policy import Policies
from detectors.verdict import DecisionWord, Reason, VerdictWord
from ingest.rollouts import Bound, Ring
from ingest.windows import AtRisk
from support.cohorts import (
    CELLS,
    T0,
    FleetPlan,
    Harness,
    crash,
    crashes,
    killed_at,
    rollout,
    simulate,
    steady,
    step,
    window,
)

# Nothing ever boots or sleeps in these fleets.
STILL = Policies({"gate": {"boots_least": 0, "wakes_least": 0}})
JULY_19 = FleetPlan(seed=19, devices=85_000, ratio=1e6, background=2e-8, seconds=60)


def test_july_19_dies_after_a_few_crashes() -> None:
    harness = Harness()
    harness.declare(rollout())
    harness.feed(simulate(JULY_19))
    assert killed_at(harness) == 7
    last = harness.latest()
    assert (last.verdict, last.reason) == (VerdictWord.REGRESSED, Reason.KILL_EVIDENCE)
    assert "needed to kill" in last.sentence
    evidence = last.evidence
    assert evidence.crashes_exposed == sum(count for _, count in evidence.signatures) > 100
    assert evidence.rate_ratio_low is not None
    assert evidence.rate_ratio_low > 100
    assert evidence.first_crash_ms is not None
    assert T0 <= evidence.first_crash_ms < T0 + 10_000
    assert (evidence.tenants, len(evidence.cells)) == (6, 3)
    assert evidence.methods[0].expected_share is not None


def test_july_19_dies_though_no_victim_is_known_before_it_crashes() -> None:
    """Every `offered` and `installed` is missing; the ring's rule bounds the share, crash reports name the version."""
    harness = Harness()
    harness.declare(rollout(Bound.DECLARED, [Ring(name="early", starts_at_ms=T0, over_seconds=4680)]))
    harness.feed(simulate(dataclasses.replace(JULY_19, known=0.0)))
    assert (killed_at(harness) or 99) <= 12


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("background", [1e-6, 2e-5])
def test_healthy_rollouts_are_never_killed_nor_held(seed: int, background: float) -> None:
    harness = Harness()
    harness.declare(rollout())
    harness.feed(simulate(FleetPlan(seed=seed, background=background, spread_seconds=60, seconds=100)))
    assert {verdict.decision for verdict in harness.said()} == {DecisionWord.UNKNOWN}
    assert VerdictWord.HEALTHY not in {verdict.verdict for verdict in harness.said()}


def test_a_rollout_that_is_watched_long_enough_proceeds() -> None:
    harness = Harness(partitions=1, policies=STILL)
    harness.declare(rollout())
    harness.feed([steady(5000, 5000)])
    harness.feed(step(0, T0 + 250 + m * 60_000, T0 + 250 + (m + 1) * 60_000) for m in range(24 * 60))
    words = [(verdict.verdict, verdict.decision) for verdict in harness.said()]
    assert words[0] == (VerdictWord.WATCHING, DecisionWord.UNKNOWN)
    assert words[-1] == (VerdictWord.HEALTHY, DecisionWord.PROCEED)
    first = words.index(words[-1])
    # log(2 / 0.05) / 0.002 and something for the mixture: 1,993 device-days, of 4,375 devices without one tenant group.
    assert 10.8 * 60 < first < 11.2 * 60
    assert "every cell of the next ring is bounded: 0 by ratio, 3 by excess" in harness.latest().sentence


def test_nobody_proceeds_with_an_update_that_nobody_has_booted_with() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout())
    harness.feed([steady(5000, 5000)])
    harness.feed(step(0, T0 + 250 + m * 60_000, T0 + 250 + (m + 1) * 60_000) for m in range(24 * 60))
    assert harness.latest().decision is DecisionWord.UNKNOWN
    assert "0 exposed devices have booted since < 1" in harness.latest().sentence


def test_rare_crashes_of_one_tenant_or_two_devices_only_hold() -> None:
    one_tenant = Harness(partitions=1)
    one_tenant.declare(rollout())
    one_tenant.feed([steady(100, 9900), crashes(12, tenants=1)])
    assert (one_tenant.latest().decision, one_tenant.latest().reason) == (DecisionWord.HOLD, Reason.TOO_FEW_TENANTS)
    trusting = Harness(partitions=1, policies=Policies({"tenants_least": 1, "devices_least": 13}))
    trusting.declare(rollout())
    trusting.feed([steady(100, 9900), crashes(12, tenants=1)])
    assert (trusting.latest().decision, trusting.latest().reason) == (DecisionWord.HOLD, Reason.TOO_FEW_DEVICES)
    trusting.feed([crashes(1, 13, T0 + 500)])
    assert trusting.latest().decision is DecisionWord.KILL


def test_crashes_of_one_site_are_counted_but_no_evidence() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout())
    found = [crash(T0 + 300, 1, CELLS[0], i % 3, scored=False) for i in range(50)]
    harness.feed([steady(), step(0, T0 + 250, T0 + 500, window(crashes=found, crash_total=50))])
    assert harness.latest().evidence.crashes_exposed == 50
    assert harness.latest().evidence.log10_evidence_max == 0.0
    assert harness.latest().decision is DecisionWord.UNKNOWN


def test_late_activity_holds_and_catching_up_ends_it() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout())
    late = step(0, T0 + 250, T0 + 500, crash_watermark_ms=T0 + 500 + 600_000)
    harness.feed([steady(), late])
    assert (harness.latest().verdict, harness.latest().decision) == (VerdictWord.NO_DATA, DecisionWord.HOLD)
    assert harness.latest().reason is Reason.ACTIVITY_LATE
    storm = crashes(50, since_ms=T0 + 500)
    storm.crash_watermark_ms = T0 + 750 + 600_000
    harness.feed([storm])
    assert harness.latest().decision is DecisionWord.HOLD
    harness.feed([step(0, T0 + 750, T0 + 1000)])
    assert harness.latest().decision is DecisionWord.KILL


def test_activity_that_stands_still_holds_though_no_step_moves() -> None:
    """Grouping can only advise while crashes run ahead of activity that does not come at all: that must hold too."""
    harness = Harness(partitions=2)
    harness.declare(rollout())
    harness.feed([steady(partition=0), steady(partition=1)])
    said = len(harness.verdicts)
    harness.feed([step(0, T0 + 250, T0 + 250, crash_watermark_ms=T0 + 29_000)])
    assert len(harness.verdicts) == said
    for seconds in (31, 32, 33):
        harness.feed([step(0, T0 + 250, T0 + 250, crash_watermark_ms=T0 + 250 + seconds * 1000)])
    assert len(harness.verdicts) == said + 1
    assert (harness.latest().decision, harness.latest().reason) == (DecisionWord.HOLD, Reason.ACTIVITY_LATE)
    harness.feed([step(0, T0 + 250, T0 + 34_000), step(1, T0 + 250, T0 + 34_000)])
    assert harness.latest().reason is not Reason.ACTIVITY_LATE


def test_a_product_may_allow_more_lateness() -> None:
    policies = Policies({"products": {"contoso/sensor": {"activity_late_seconds": 900.0}}})
    harness = Harness(partitions=1, policies=policies)
    harness.declare(rollout())
    harness.feed([steady(), step(0, T0 + 250, T0 + 500, crash_watermark_ms=T0 + 500 + 600_000)])
    assert harness.latest().reason is not Reason.ACTIVITY_LATE
    harness.feed([step(0, T0 + 500, T0 + 750, crash_watermark_ms=T0 + 750 + 901_000)])
    assert harness.latest().reason is Reason.ACTIVITY_LATE


def test_blindness_is_said_once_a_minute_and_ends_with_the_next_step() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout())
    harness.feed([steady()])
    said = len(harness.verdicts)
    for now_ms in (1000, 2000, 60_999, 61_000):
        harness.stage.blind(now_ms)
    harness.collect()
    assert len(harness.verdicts) == said + 2
    assert (harness.latest().verdict, harness.latest().decision) == (VerdictWord.NO_DATA, DecisionWord.UNKNOWN)
    assert harness.latest().reason is Reason.NO_TELEMETRY
    harness.feed([step(0, T0 + 250, T0 + 500)])
    assert harness.latest().verdict is VerdictWord.WATCHING


def test_a_part_that_is_not_heard_from_takes_health_away_but_no_evidence() -> None:
    """While Cordon doubts that it sees everything nothing proceeds, what crashes still kills, and it is said once."""
    harness = Harness(partitions=1)
    harness.declare(rollout())
    harness.feed([steady()])
    said = len(harness.verdicts)
    for _ in range(3):
        harness.stage.doubt(["grouping/3 silent"])
    harness.collect()
    assert len(harness.verdicts) == said + 1
    assert (harness.latest().verdict, harness.latest().decision) == (VerdictWord.WATCHING, DecisionWord.UNKNOWN)
    assert "(grouping/3 silent)" in harness.latest().sentence
    harness.feed([step(0, T0 + 250, T0 + 500)])
    harness.stage.doubt([])
    harness.collect()
    assert "grouping/3" not in harness.latest().sentence
    harness.stage.doubt(["grouping/3 silent"])
    harness.feed([crashes(12, since_ms=T0 + 500)])
    assert harness.latest().decision is DecisionWord.KILL


def test_without_a_bound_crashes_hold_as_blind() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout(Bound.NONE))
    harness.feed([steady()])
    assert (harness.latest().verdict, harness.latest().decision) == (VerdictWord.NO_DATA, DecisionWord.UNKNOWN)
    harness.feed([crashes(40)])
    assert (harness.latest().decision, harness.latest().reason) == (DecisionWord.HOLD, Reason.NO_EXPOSURE_BOUND)
    assert harness.latest().evidence.log10_evidence_max == 0.0
    harness.declare(rollout(Bound.OFFERED))
    harness.feed([crashes(16, 41, T0 + 500)])
    assert harness.latest().decision is DecisionWord.KILL


def test_a_crash_in_a_ring_that_is_pushed_to_as_a_whole_does_not_speak_for_the_update() -> None:
    """Nobody in such a cell is control; a device whose report names no version is exposed by the rule."""
    harness = Harness(partitions=1)
    harness.declare(rollout(Bound.DECLARED, [Ring(name="early", starts_at_ms=T0)]))
    harness.feed([steady(0, 10_000), crashes(20, exposed=0)])
    evidence = harness.latest().evidence
    assert (evidence.crashes_exposed, evidence.crashes_control) == (20, 0)
    assert abs(evidence.log10_evidence) < 1e-6


def test_stale_owners_and_repeated_steps_are_ignored() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout())
    harness.feed([steady(), crashes(2)])
    said = len(harness.verdicts)
    stale = crashes(30, 3, T0 + 500)
    stale.generation = 0
    harness.feed([steady(), crashes(2), stale])
    assert len(harness.verdicts) == said
    assert harness.latest().evidence.crashes_exposed == 2
    newer = crashes(1, 3, T0 + 500)
    newer.generation = 2
    harness.feed([newer])
    assert harness.latest().evidence.crashes_exposed == 3


def test_a_gap_is_named_and_gives_no_evidence_until_every_cell_is_named_again() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout())
    harness.feed([steady(), crashes(40, since_ms=T0 + 1000)])
    assert "steps of device partitions 0 were lost" in harness.latest().sentence
    assert harness.latest().evidence.crashes_exposed == 40
    assert harness.latest().evidence.log10_evidence_max == 0.0
    rows = [AtRisk(CELLS[0], tenant, 125, 1125) for tenant in range(8)]
    whole = window(full=True, at_risk=rows, crash_total=40, exposed_total=1000)
    harness.feed([step(0, T0 + 1250, T0 + 1500, whole), crashes(16, 41, T0 + 1500)])
    assert "lost" not in harness.latest().sentence
    assert harness.latest().decision is DecisionWord.KILL


def test_lost_crashes_show_in_the_chain_of_totals() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout())
    harness.feed([steady(), crashes(40, 8)])
    assert "were lost" in harness.latest().sentence
    assert harness.latest().evidence.log10_evidence_max == 0.0


def test_a_partition_that_goes_blind_is_left_out_and_named_while_the_others_count() -> None:
    harness = Harness(blind_seconds=10)
    harness.declare(rollout())
    harness.feed([steady(partition=0), steady(partition=1)])
    since = T0 + 250
    for _ in range(60):
        harness.feed([step(0, since, since + 250)])
        since += 250
    assert "without device partitions 1," in harness.latest().sentence
    assert harness.latest().evidence.at_risk_exposed == 1000
    harness.feed([crashes(16, since_ms=since)])
    assert harness.latest().decision is DecisionWord.KILL
    assert "without device partitions 1," in harness.latest().sentence
    harness.feed([step(1, T0 + 250, since + 250)])
    assert "without" not in harness.latest().sentence
    assert harness.latest().evidence.at_risk_exposed == 2000


def test_a_device_partition_without_an_owner_ends_health_at_once_and_no_evidence_of_the_others() -> None:
    """Nobody groups partition 1 any more: what proceeded is unknown, never healthy again, and can still be killed."""
    harness = Harness(partitions=2, blind_seconds=10, policies=STILL)
    harness.declare(rollout())
    harness.feed([steady(5000, 5000, partition=0), steady(5000, 5000, partition=1)])
    minutes = [T0 + 250 + minute * 60_000 for minute in range(24 * 60 + 1)]
    for since, until in itertools.pairwise(minutes):
        harness.feed([step(0, since, until), step(1, since, until)])
    assert harness.latest().decision is DecisionWord.PROCEED
    said, since = len(harness.verdicts), minutes[-1]
    for _ in range(60):
        harness.feed([step(0, since, since + 250)])
        since += 250
    # Within the ten seconds that Cordon calls blindness, and a second for the word.
    assert harness.said()[said].at_ms <= minutes[-1] + 11_000
    assert {verdict.decision for verdict in harness.said()[said:]} == {DecisionWord.UNKNOWN}
    assert VerdictWord.HEALTHY not in {verdict.verdict for verdict in harness.said()[said:]}
    assert harness.stage.merged_ms == since
    # Half of the devices at risk are exposed, so each crash says little: a hundred say enough.
    harness.feed([crashes(100, since_ms=since)])
    assert harness.latest().decision is DecisionWord.KILL


def test_a_fast_replay_leaves_nobody_out() -> None:
    """A thousand seconds of event time in one of append time: lag in event time alone is no blindness."""
    harness = Harness(blind_seconds=10)
    harness.declare(rollout())
    harness.feed([steady(partition=0)], append_ms=5)
    harness.feed([step(0, T0 + 250, T0 + 900_000)], append_ms=900)
    harness.feed([steady(partition=1), step(1, T0 + 250, T0 + 900_000)], append_ms=1000)
    assert all("without" not in verdict.sentence for verdict in harness.said())
    assert harness.latest().at_ms == T0 + 900_000
