"""The detection stage: a bad rollout dies, a healthy one never, and nothing is said that is not known."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.chunks import StateError
from detectors.policy import Policies
from detectors.stage import DetectionStage
from detectors.verdict import DecisionWord, Reason, Verdict, VerdictWord, verdict_decoder
from ingest.clock import DrivenClock
from ingest.events import encoder
from ingest.log.interface import Entry, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.rollouts import Bound, Ring
from ingest.topics import Topics
from ingest.windows import AtRisk, Step
from support.cohorts import CELLS, T0, FleetPlan, Harness, crash, heard, rollout, simulate, step, window

JULY_19 = FleetPlan(seed=19, devices=85_000, ratio=1e6, background=2e-8, seconds=60)


def steady(exposed: int = 1000, control: int = 9000, partition: int = 0) -> Step:
    """Return a partition's first step, naming the counts of one cell."""
    return step(
        partition,
        0,
        T0 + 250,
        window(full=True, at_risk=[AtRisk(CELLS[0], 0, exposed, control)], exposed_total=exposed),
    )


def crashes(count: int, number: int = 1, since_ms: int = T0 + 250, exposed: int = 1, tenants: int = 3) -> Step:
    """Return the step after `since_ms` of partition 0 with some crashes."""
    found = [crash(since_ms + 5 + i, exposed, CELLS[0], i % tenants) for i in range(count)]
    return step(0, since_ms, since_ms + 250, window(crashes=found, crash_total=number - 1 + count, exposed_total=1000))


def killed_at(harness: Harness) -> int | None:
    """Return how many exposed crashes the first kill had seen; None without a kill."""
    return next((v.evidence.crashes_exposed for v in harness.said() if v.decision is DecisionWord.KILL), None)


def test_july_19_dies_after_a_few_crashes() -> None:
    harness = Harness()
    harness.declare(rollout())
    harness.feed(simulate(JULY_19))
    assert killed_at(harness) == 6
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
    harness = Harness(partitions=1)
    harness.declare(rollout())
    harness.feed([steady(5000, 5000)])
    harness.feed(step(0, T0 + 250 + m * 60_000, T0 + 250 + (m + 1) * 60_000) for m in range(24 * 60))
    words = [(verdict.verdict, verdict.decision) for verdict in harness.said()]
    assert words[0] == (VerdictWord.WATCHING, DecisionWord.UNKNOWN)
    assert words[-1] == (VerdictWord.HEALTHY, DecisionWord.PROCEED)
    first = words.index(words[-1])
    # 3.69 crashes may hide behind none seen: 5,000 devices need 9 hours to bound the excess by 0.002 a day.
    assert 8 * 60 < first < 9 * 60
    assert "excess at most" in harness.latest().sentence


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


def test_without_a_bound_crashes_hold_as_blind() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout(Bound.NONE))
    harness.feed([steady()])
    assert (harness.latest().verdict, harness.latest().decision) == (VerdictWord.NO_DATA, DecisionWord.UNKNOWN)
    harness.feed([crashes(40)])
    assert (harness.latest().decision, harness.latest().reason) == (DecisionWord.HOLD, Reason.NO_EXPOSURE_BOUND)
    assert harness.latest().evidence.log10_evidence_max == 0.0
    harness.declare(rollout(Bound.OFFERED))
    harness.feed([crashes(10, 41, T0 + 500)])
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
    whole = window(full=True, at_risk=[AtRisk(CELLS[0], 0, 1000, 9000)], crash_total=40, exposed_total=1000)
    harness.feed([step(0, T0 + 1250, T0 + 1500, whole), crashes(10, 41, T0 + 1500)])
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
    harness.feed([crashes(12, since_ms=since)])
    assert harness.latest().decision is DecisionWord.KILL
    assert "without device partitions 1," in harness.latest().sentence
    harness.feed([step(1, T0 + 250, since + 250)])
    assert "without" not in harness.latest().sentence
    assert harness.latest().evidence.at_risk_exposed == 2000


def test_a_fast_replay_leaves_nobody_out() -> None:
    """A thousand seconds of event time in one of append time: lag in event time alone is no blindness."""
    harness = Harness(blind_seconds=10)
    harness.declare(rollout())
    harness.feed([steady(partition=0)], append_ms=5)
    harness.feed([step(0, T0 + 250, T0 + 900_000)], append_ms=900)
    harness.feed([steady(partition=1), step(1, T0 + 250, T0 + 900_000)], append_ms=1000)
    assert all("without" not in verdict.sentence for verdict in harness.said())
    assert harness.latest().at_ms == T0 + 900_000


def _steps(plan: FleetPlan) -> dict[int, list[Step]]:
    by_partition: dict[int, list[Step]] = {}
    for one in simulate(plan):
        by_partition.setdefault(one.partition, []).append(one)
    return by_partition


SMALL = FleetPlan(seed=3, devices=9000, partitions=3, ratio=5e4, background=2e-6, seconds=6, spread_seconds=600)
SMALL_STEPS = _steps(SMALL)


@pytest.fixture(scope="module")
def straight() -> Harness:
    """Return what is said of the steps in the order of a live log."""
    harness = Harness(partitions=3)
    harness.declare(rollout())
    harness.feed(simulate(SMALL), append_ms=0)
    return harness


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_verdicts_do_not_depend_on_how_partitions_interleave(straight: Harness, seed: int) -> None:
    shuffled = Harness(partitions=3)
    shuffled.declare(rollout())
    rng = random.Random(seed)
    left = {number: list(steps) for number, steps in SMALL_STEPS.items()}
    while left:
        number = rng.choice(sorted(left))
        take = rng.randint(1, 8)
        shuffled.feed(left[number][:take], append_ms=0)
        left[number] = left[number][take:]
        if not left[number]:
            del left[number]
    assert shuffled.verdicts == straight.verdicts
    assert straight.latest().decision is DecisionWord.KILL


def test_a_restart_after_every_step_gives_the_same_bytes() -> None:
    through, restarted = Harness(partitions=3), Harness(partitions=3, snapshot_seconds=0)
    steps = [*simulate(SMALL)]
    minute = [
        step(p, T0 + 6000, T0 + 60_250, window(heard=[heard(T0, CELLS[0], (40, 300))], crash_total=_total(p)))
        for p in range(3)
    ]
    silent = [
        step(p, T0 + 60_250, T0 + 960_250, window(heard=[heard(T0, CELLS[0], (0, 0), (20, 3))], crash_total=_total(p)))
        for p in range(3)
    ]
    later = [step(p, T0 + 960_250, T0 + 970_000) for p in range(3)]
    for harness in (through, restarted):
        harness.declare(rollout(), rollout(rollout="r-2", version="292", origin_ms=T0 + 1))
    for now_ms, one in enumerate([*steps, *minute, *silent, *later]):
        through.feed([one])
        restarted.feed([one])
        restarted.snapshot(now_ms)
        restarted.restart()
    assert through.verdicts == restarted.verdicts
    assert {v.rollout for v in through.said()} == {rollout().rollout, "r-2"}
    mine = [v for v in through.said() if v.rollout == rollout().rollout][-1].evidence.methods[1]
    assert (mine.events_exposed, mine.events_control) == (60, 9)
    assert mine.log10_evidence > 6


def _total(partition: int) -> int:
    return SMALL_STEPS[partition][-1].windows[0].crash_total


def test_silence_alone_kills_when_nobody_can_report() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout())
    first = window(heard=[heard(T0, CELLS[0], (200, 1500))])
    second = window(heard=[heard(T0, CELLS[0], (0, 0), (120, 15))])
    harness.feed([steady(), step(0, T0 + 250, T0 + 60_000, first), step(0, T0 + 60_000, T0 + 960_000, second)])
    assert harness.latest().decision is DecisionWord.UNKNOWN
    # Nothing is said in the step in which it falls due: the stage must think of it by itself.
    harness.feed([step(0, T0 + 960_000, T0 + 966_000)])
    assert harness.latest().evidence.crashes_exposed == 0
    # Rows of one tenant group only: held until a second tenant's devices fall silent.
    assert (harness.latest().decision, harness.latest().reason) == (DecisionWord.HOLD, Reason.TOO_FEW_TENANTS)


def test_chunks_are_small_whole_and_only_written_when_changed() -> None:
    harness = Harness(partitions=1, snapshot_seconds=0)
    harness.declare(rollout(), rollout(rollout="r-2", version="292"))
    harness.feed([steady()])
    rng = random.Random(1)
    since = T0 + 250
    for _ in range(500):
        rows = [
            AtRisk(f"{c}|laptop|early|old|recent", 0, rng.randint(0, 2**31 - 1), rng.randint(0, 2**31 - 1))
            for c in range(200)
        ]
        harness.feed([step(0, since, since + 1000, window(at_risk=rows))])
        since += 1000
    entries = harness.snapshot(0)
    assert max(len(entry.value or b"") for entry in entries) <= 256 * 1024
    assert sum(entry.key is not None and entry.key.startswith(b"r-") for entry in entries) > 3
    harness.feed([step(0, since, since + 250)])
    assert {entry.key for entry in harness.snapshot(1)} == {b"stage/0"}
    gone = next(key for key in harness.state if key.endswith(b"/1"))
    del harness.state[gone]
    with pytest.raises(StateError, match="not whole"):
        harness.restart()


def test_snapshots_wait_their_time() -> None:
    harness = Harness(partitions=1, snapshot_seconds=60)
    assert harness.snapshot(1000)
    assert not harness.snapshot(60_999)
    assert harness.snapshot(61_000)


def test_a_state_with_another_partition_count_is_refused() -> None:
    harness = Harness(partitions=2, snapshot_seconds=0)
    harness.declare(rollout())
    harness.snapshot(0)
    harness.topics = Topics(device_partitions=3)
    with pytest.raises(ValueError, match="device_partitions"):
        harness.restart()


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b'{"kind":"step"}', b"\xff\xfe", b'{"x":' + b"[" * 100_000, encoder.encode(step(99, 0, T0))],
)
def test_unreadable_records_are_dead_lettered(value: bytes) -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout())
    harness.raw(value)
    assert [entry.topic for entry in harness.dead] == ["cordon.deadletter.v1"]
    harness.feed([steady(), crashes(12)])
    assert harness.latest().decision is DecisionWord.KILL


def test_a_rollout_whose_numbers_make_no_sense_fails_alone() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout(), rollout(rollout="r-2", version="292"))
    other = window(crashes=[], at_risk=[AtRisk(CELLS[0], 0, 2**62, 2**62)], full=True)
    other.rollout = "r-2"
    first = steady()
    first.windows.append(other)
    harness.feed([first, crashes(12)])
    latest = {verdict.rollout: verdict for verdict in harness.said()}
    assert (latest["r-2"].verdict, latest["r-2"].decision) == (VerdictWord.ERROR, DecisionWord.UNKNOWN)
    assert latest["r-2"].reason is Reason.DETECTOR_FAILED
    assert latest[rollout().rollout].decision is DecisionWord.KILL


def test_a_closed_rollout_is_no_longer_spoken_of() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout())
    harness.feed([steady()])
    harness.declare(rollout(closed=True))
    said = len(harness.verdicts)
    harness.feed([crashes(12)])
    assert len(harness.verdicts) == said


def test_dry_run_decides_and_marks() -> None:
    harness = Harness(partitions=1, policies=Policies({"dry_run": True}))
    harness.declare(rollout())
    harness.feed([steady(), crashes(12)])
    assert harness.latest().dry_run
    assert harness.latest().decision is DecisionWord.KILL


def test_verdicts_are_said_at_changes_and_once_a_minute_otherwise() -> None:
    harness = Harness(partitions=1)
    harness.declare(rollout())
    harness.feed([steady()])
    harness.feed(
        step(0, T0 + 250 * n, T0 + 250 * (n + 1), window(at_risk=[AtRisk(CELLS[0], 0, 1000 + n, 9000)]))
        for n in range(1, 1200)
    )
    assert 5 <= len(harness.verdicts) <= 7


class Shop:
    """A stage under an Owner on a log in memory."""

    def __init__(self) -> None:
        self.clock = DrivenClock(T0)
        self.topics = Topics(device_partitions=1)
        self.log = MemoryLog(topic_specs(self.topics), self.clock)
        self.open()

    def open(self) -> None:
        self.stage = DetectionStage(self.topics, 0, Policies({}), snapshot_seconds=0)
        state = TopicPartition(self.topics.name("detection"), 0)
        self.owner = Owner(self.log, "detection/0", "detection", self.stage, state, self.clock)
        self.owner.start()

    def append(self, word: str, value: bytes) -> None:
        key = b"r" if word == "rollouts" else None
        self.log.append([Entry(self.topics.name(word), 0, key, value)])

    def run(self, steps: int = 6) -> None:
        for _ in range(steps):
            self.owner.step(0.0)
            self.clock.drive_to(self.clock.now_ms() + 1)

    def verdicts(self) -> list[Verdict]:
        records = self.log.read(TopicPartition(self.topics.name("verdicts"), 0), 0)
        return [verdict_decoder.decode(record.value or b"") for record in records]


def test_windows_wait_for_their_rollout_to_be_read() -> None:
    """The rollouts topic is appended first but may be read second: the stage asks for it before it scores."""
    shop = Shop()
    for one in (steady(), crashes(12)):
        shop.append("cohorts", encoder.encode(one))
    shop.owner.step(0.0)
    assert shop.stage.wants() == (shop.stage.inputs[0],)
    assert shop.verdicts() == []
    shop.append("rollouts", encoder.encode(rollout()))
    shop.run()
    assert shop.stage.wants() == shop.stage.inputs
    assert shop.verdicts()[-1].decision is DecisionWord.KILL


def test_a_rollout_that_nobody_wrote_down_is_held_as_blind_after_a_few_asks() -> None:
    shop = Shop()
    for one in (steady(), crashes(12)):
        shop.append("cohorts", encoder.encode(one))
    shop.run()
    assert shop.verdicts()[-1].reason is Reason.NO_EXPOSURE_BOUND
    assert shop.verdicts()[-1].decision is DecisionWord.HOLD


def test_an_owner_goes_on_where_the_last_one_stopped() -> None:
    shop = Shop()
    shop.append("rollouts", encoder.encode(rollout()))
    shop.append("cohorts", encoder.encode(steady()))
    shop.run(2)
    shop.open()
    shop.append("cohorts", encoder.encode(crashes(12)))
    shop.run(2)
    assert shop.verdicts()[-1].decision is DecisionWord.KILL
    assert shop.verdicts()[-1].evidence.exposed == 1000
