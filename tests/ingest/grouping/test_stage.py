"""Grouping over a log: who is exposed, what is evidence, and that nothing is counted twice."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from ingest.clock import DrivenClock
from ingest.events import Report
from ingest.grouping.partition import Partition
from ingest.grouping.stage import GroupingSettings, GroupingStage
from ingest.log.interface import Entry, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.minutes import minute_of, offset_seconds
from ingest.rollouts import rollout_id
from ingest.topics import Topics
from ingest.windows import CohortWindow, Step, step_decoder
from support.world import NEW, OLD, PRODUCT, T0, VENDOR, World

SECOND = 1000
SENSOR = "falcon-sensor"


class Run:
    """A grouping stage over an in-memory log, with what it said."""

    def __init__(self, partitions: int = 2, snapshot_seconds: int = 4) -> None:
        self.topics = Topics(device_partitions=partitions)
        self.clock = DrivenClock(T0)
        self.log = MemoryLog(topic_specs(self.topics), self.clock)
        self.world = World(self.topics)
        self.metrics = Metrics()
        self.snapshot_seconds = snapshot_seconds
        self.start()

    def start(self) -> None:
        settings = GroupingSettings(
            range(self.topics.device_partitions), 100_000, silence_seconds=900, snapshot_seconds=self.snapshot_seconds
        )
        self.stage = GroupingStage(self.topics, settings, self.metrics)
        state = [TopicPartition(self.topics.name("fleet"), p) for p in range(self.topics.device_partitions)]
        self.owner = Owner(self.log, "grouping", "grouping", self.stage, state, self.clock)
        self.owner.start()
        self.stage.generation = self.owner.fence.epoch

    def append(self, entries: Sequence[Entry]) -> None:
        if entries:
            self.log.append(list(entries))

    def settle(self) -> None:
        while self.owner.step(0):
            pass

    def to(self, at_ms: int) -> None:
        self.clock.drive_to(at_ms)
        self.append(self.world.ticks(at_ms))
        self.settle()

    def steps(self) -> list[Step]:
        found: list[Step] = []
        source, offset = TopicPartition(self.topics.name("cohorts"), 0), 0
        while records := self.log.read(source, offset):
            found.extend(step_decoder.decode(record.value or b"") for record in records)
            offset = records[-1].offset + 1
        return found

    def told(self) -> "Told":
        return Told(self.steps())


class Told:
    """What a reader of the cohort topic holds: counts by cell, crashes in order, steps chained."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.at_risk: dict[tuple[int, str, str, int], tuple[int, int]] = {}
        self.crashes: list[tuple[str, int, bool, str]] = []
        self.heard: dict[tuple[str, str, int], list[int]] = {}
        self.margins: dict[tuple[int, str, str, int], tuple[int, int]] = {}
        self.watermarks: dict[int, int] = {}
        self.totals: dict[tuple[int, str], int] = {}
        for step in steps:
            held = self.watermarks.get(step.partition, 0)
            if step.watermark_ms <= held:
                continue
            assert step.since_ms == held
            self.watermarks[step.partition] = step.watermark_ms
            for window in step.windows:
                self._take(step.partition, window)

    def _take(self, partition: int, window: CohortWindow) -> None:
        if window.full:
            for key in [k for k in self.at_risk if k[:2] == (partition, window.rollout)]:
                del self.at_risk[key]
            for key in [k for k in self.margins if k[:2] == (partition, window.rollout)]:
                del self.margins[key]
            self._check_margins(window)
        for row in window.at_risk:
            self.at_risk[partition, window.rollout, row.cell, row.group] = (row.exposed, row.control)
        for margin in window.margins:
            self.margins[partition, window.rollout, margin.margin, margin.group] = (margin.exposed, margin.control)
        for crash in window.crashes:
            self.crashes.append((crash.cell, crash.exposed, crash.scored, crash.kind))
        for minute in window.heard:
            sums = self.heard.setdefault((window.rollout, minute.cell, minute.minute_ms), [0, 0, 0, 0])
            for place, number in enumerate(msgspec.structs.astuple(minute)[3:]):
                sums[place] += number
        self.totals[partition, window.rollout] = window.crash_total

    @staticmethod
    def _check_margins(window: CohortWindow) -> None:
        """Assert that the builds and the models of a full window add up to its devices at risk, by group and arm."""
        sums = Counter[tuple[int, str]]()
        for row in window.at_risk:
            sums.update({(row.group, "exposed"): row.exposed, (row.group, "control"): row.control})
        for word in ("build", "model"):
            found = Counter[tuple[int, str]]()
            for margin in window.margins:
                if margin.margin.startswith(f"{word}="):
                    found.update({(margin.group, "exposed"): margin.exposed, (margin.group, "control"): margin.control})
            assert +found == +sums

    @property
    def exposed(self) -> int:
        return sum(exposed for exposed, _ in self.at_risk.values())

    @property
    def control(self) -> int:
        return sum(control for _, control in self.at_risk.values())


def fleet_of(run: Run, devices: int) -> None:
    """Let all devices check in on the old version, before the rollout."""
    run.append(run.world.batches("activity", [run.world.check_in(d, T0) for d in range(devices)], T0))
    run.to(T0 + SECOND)


def test_counts_by_arm_follow_offers() -> None:
    """A device is control until it is offered the update, and exposed from then on, installed or not."""
    run = Run()
    fleet_of(run, 100)
    run.append(run.world.notices(T0 + 2 * SECOND))
    run.append(run.world.batches("activity", [run.world.offered(d, T0 + 2 * SECOND) for d in range(30)], T0))
    run.to(T0 + 3 * SECOND)
    assert (run.told().exposed, run.told().control) == (30, 70)
    run.append(run.world.batches("activity", [run.world.installed(d, T0 + 4 * SECOND) for d in range(10)], T0))
    run.append(run.world.batches("activity", [run.world.check_in(d, T0 + 4 * SECOND) for d in range(10, 30)], T0))
    run.to(T0 + 5 * SECOND)
    assert (run.told().exposed, run.told().control) == (30, 70)


def test_pushed_devices_are_exposed_without_a_word() -> None:
    """The rollout system's list exposes devices from its time on, though they never say so."""
    run = Run()
    fleet_of(run, 50)
    run.append(run.world.notices(T0, pushed=range(20), from_ms=T0 + 10 * SECOND))
    run.to(T0 + 5 * SECOND)
    assert run.told().exposed == 0
    run.to(T0 + 11 * SECOND)
    assert (run.told().exposed, run.told().control) == (20, 30)


def test_a_victim_that_says_only_its_crash_is_exposed() -> None:
    """A crash report that names the version from disk exposes its device, which leaves the devices at risk."""
    run = Run()
    fleet_of(run, 50)
    run.append(run.world.notices(T0 + SECOND))
    crash = run.world.bsod(3, T0 + 5 * SECOND, version=NEW)
    run.append(run.world.batches("crashes", [crash], T0 + 6 * SECOND))
    run.to(T0 + 7 * SECOND)
    told = run.told()
    assert [exposed for _, exposed, _, _ in told.crashes] == [1]
    assert (told.exposed, told.control) == (0, 49)


def test_each_device_crashes_once_since_the_origin() -> None:
    """A second crash, and a boot loop after it, are no further evidence; a crash before the origin does not count."""
    run = Run()
    fleet_of(run, 20)
    run.append(run.world.batches("crashes", [run.world.bsod(1, T0 + SECOND, version=OLD)], T0 + SECOND))
    run.to(T0 + 2 * SECOND)
    run.append(run.world.notices(T0 + 3 * SECOND))
    run.to(T0 + 4 * SECOND)
    crashes: list[Report] = [
        run.world.bsod(1, T0 + 5 * SECOND),
        run.world.bsod(1, T0 + 6 * SECOND),
        run.world.boot_loop(1, T0 + 7 * SECOND),
    ]
    run.append(run.world.batches("crashes", crashes, T0 + 8 * SECOND))
    run.to(T0 + 9 * SECOND)
    assert [exposed for _, exposed, _, _ in run.told().crashes] == [0]


def test_one_scored_crash_a_site_in_five_minutes() -> None:
    """A power cut takes a whole site; only its first crash is evidence, the others are counted."""
    run = Run(partitions=1)
    fleet_of(run, 20)
    run.append(run.world.notices(T0 + SECOND))
    crashes = [run.world.bsod(d, T0 + 5 * SECOND, site="plant-1", tenant="t") for d in range(5)]
    run.append(run.world.batches("crashes", crashes, T0 + 6 * SECOND))
    run.to(T0 + 7 * SECOND)
    assert [scored for _, _, scored, _ in run.told().crashes] == [True, False, False, False, False]


def test_a_crash_somebody_asked_for_is_no_evidence() -> None:
    """A manually initiated crash and a held power button are not the driver's."""
    run = Run()
    fleet_of(run, 20)
    run.append(run.world.notices(T0 + SECOND))
    crashes = [run.world.bsod(1, T0 + 5 * SECOND, bugcheck=0xE2), run.world.bsod(2, T0 + 5 * SECOND, bugcheck=0x1C8)]
    run.append(run.world.batches("crashes", crashes, T0 + 6 * SECOND))
    run.to(T0 + 7 * SECOND)
    assert run.told().crashes == []


def test_crashes_wait_for_late_activity() -> None:
    """With activity behind, a crash is no evidence yet; an advisory step says how many wait and how late it is."""
    run = Run(partitions=1)
    fleet_of(run, 20)
    run.append(run.world.notices(T0 + SECOND))
    run.append(run.world.batches("crashes", [run.world.bsod(1, T0 + 5 * SECOND)], T0 + 5 * SECOND))
    run.append(run.world.ticks(T0 + 600 * SECOND, ["crashes"]))
    run.settle()
    last = run.steps()[-1]
    assert last.watermark_ms == last.since_ms == T0 + SECOND
    assert last.crash_watermark_ms == T0 + 600 * SECOND
    assert last.pending == 1
    assert run.told().crashes == []
    run.append(run.world.ticks(T0 + 600 * SECOND, ["activity"]))
    run.settle()
    assert len(run.told().crashes) == 1


def test_silent_devices_are_told_against_their_minute() -> None:
    """Devices heard in a minute and not again within 15 minutes are silent, by arm; sizes are told at its end."""
    run = Run(partitions=1)
    fleet_of(run, 12)
    # Of the rollout's own minutes the first that begins after a whole one of the clock's.
    minute = minute_of(T0 // SECOND + 119, offset_seconds(rollout_id(VENDOR, PRODUCT, NEW))) * SECOND
    run.append(run.world.notices(T0 + SECOND))
    for at in (T0 + 60 * SECOND, minute):
        run.to(at)
    reports: list[Report] = [run.world.offered(d, minute + SECOND) for d in range(6)]
    reports += [run.world.check_in(d, minute + SECOND) for d in range(6, 12)]
    run.append(run.world.batches("activity", reports, minute + SECOND))
    for at in range(minute + 20 * SECOND, minute + 17 * 60 * SECOND, 20 * SECOND):
        if at > minute + 60 * SECOND and (at - minute) % 60_000 == 20 * SECOND:
            alive = [run.world.check_in(d, at) for d in range(4, 12)]
            run.append(run.world.batches("activity", alive, at))
        run.to(at)
    rows = [sums for (_, _, at), sums in run.told().heard.items() if at == minute]
    sizes = np.sum(rows, axis=0)
    assert sizes.tolist() == [6, 6, 4, 0]


def test_duplicates_strangers_and_garbage_have_an_outcome() -> None:
    """A repeated report, a record in a wrong partition and one that does not decode change nothing, and are counted."""
    run = Run()
    fleet_of(run, 10)
    again = run.world.batches("activity", [run.world.check_in(1, T0)], T0)
    run.append([*again, *again])
    stranger = run.world.batches("activity", [run.world.check_in(2, T0)], T0)[0]
    run.append([stranger._replace(partition=1 - stranger.partition), stranger._replace(value=b"{nonsense")])
    run.append([stranger._replace(value=value) for value in (b'{"gateway":"\xff"}', b'{"x":' + b"[" * 100_000)])
    run.to(T0 + 2 * SECOND)
    assert run.metrics.value("grouped_total", outcome="duplicate") == 1
    assert run.metrics.value("grouped_total", outcome="wrong_partition") == 1
    assert run.metrics.value("deadletters_total", reason="wrong_partition") == 1
    assert run.metrics.value("deadletters_total", reason="unreadable") == 3
    assert run.metrics.value("grouped_total", outcome="accepted") == 11


def recount(partition: Partition) -> None:
    """Assert that every table is what a fresh count over the rows gives."""
    cohorts = partition.population.cohorts
    for watched in cohorts.watched.values():
        table, exposed = watched.table.copy(), watched.exposed_total
        watched.uncounted = watched.resumed = True
        cohorts.count()
        watched.margins = None
        assert (table == watched.table).all()
        assert exposed == watched.exposed_total


def play(run: Run, seed: int, restart_at: frozenset[int] = frozenset()) -> None:
    """Play a seeded hour of reports, crashes, pushes and duplicates; restart without warning at the given turns."""
    rng = np.random.default_rng(seed)
    fleet_of(run, 400)
    for turn in range(40):
        at = T0 + (turn + 1) * 20 * SECOND
        world = run.world
        if turn == 3:
            run.append(world.notices(at, pushed=range(380, 400), from_ms=at + 60 * SECOND))
        if turn == 20:
            run.append(world.notices(at, version="291.32"))
        if turn == 8:
            run.append(world.notices(at, "7.11", range(100), at + 60 * SECOND, product=SENSOR))
        if turn == 34:
            run.append(world.notices(at, "7.11", product=SENSOR, closed=True))
        some = rng.choice(420, 60, replace=False).tolist()
        activity = [
            world.offered(d, at) if turn > 3 and rng.random() < 0.2 else world.check_in(d, at, None if d % 3 else OLD)
            for d in some
        ]
        activity += [world.offered(d, at, "7.11", SENSOR) for d in some[:10] if turn > 8]
        crashes = [world.bsod(int(d), at - int(rng.integers(0, 30)) * SECOND, NEW if rng.random() < 0.5 else None)
                   for d in rng.choice(420, 5)]  # fmt: skip
        run.append(world.batches("activity", activity + activity[:5], at))
        run.append(world.batches("crashes", crashes, at))
        run.to(at + 10 * SECOND)
        for partition in run.stage.partitions.values():
            recount(partition)
        if turn in restart_at:
            run.start()
            run.settle()


@pytest.mark.parametrize("seed", range(4))
def test_restarts_change_nothing(seed: int) -> None:
    """Whatever the moment of a restart, a reader of the cohort topic ends with the same counts and the same crashes."""
    rng = np.random.default_rng(100 + seed)
    plain, broken = Run(), Run()
    play(plain, seed)
    play(broken, seed, frozenset(rng.choice(40, 8, replace=False).tolist()))
    for run in (plain, broken):
        # Margins are as of the last full window, and a restart brings one more: at a minute both have said the same.
        run.to(T0 + 15 * 60 * SECOND)
    expected, told = plain.told(), broken.told()
    assert told.at_risk == expected.at_risk
    assert sorted(told.crashes) == sorted(expected.crashes)
    assert told.totals == expected.totals
    assert told.heard == expected.heard
    closed = rollout_id(VENDOR, SENSOR, "7.11")
    assert {k: n for k, n in told.margins.items() if k[1] != closed} == {
        k: n for k, n in expected.margins.items() if k[1] != closed
    }
    split = {cell for _, cell, _ in expected.heard} & {cell for cell, *_ in expected.crashes}
    assert any(cell.count("|") == 5 for cell in split), "silence and crashes are told in cells split by rivals"
    assert len(expected.crashes) > 50
