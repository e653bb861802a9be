"""The detection stage over time: order does not matter, restarts do not show, its state is bounded and whole."""

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
from ingest.topics import Topics
from ingest.windows import AtRisk, Step
from support.cohorts import CELLS, T0, FleetPlan, Harness, crashes, heard, rollout, simulate, steady, step, window

JULY_19 = FleetPlan(seed=19, devices=85_000, ratio=1e6, background=2e-8, seconds=60)


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
    mine = [v for v in through.said() if v.rollout == rollout().rollout][-1].evidence.methods[2]
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
