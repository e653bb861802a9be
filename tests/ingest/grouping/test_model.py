"""Grouping against a plain model of it: random histories of hostile reporters, counted afresh at every step."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from ingest.clock import DrivenClock
from ingest.events import Report, RolloutNotice, encoder
from ingest.grouping.snapshot import CHUNK_ROWS
from ingest.grouping.stage import GroupingSettings, GroupingStage
from ingest.log.interface import Entry, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from ingest.windows import step_decoder
from support.grouping_model import Model
from support.world import KEY, NEW, OLD, T0, World, pseudonym

SECOND = 1000
NEWER = "291.32"
VERSIONS = (OLD, NEW, NEWER)


class Played:
    """One partition of grouping and its model, fed with the same history; restarted at will."""

    def __init__(self, snapshot_seconds: int = 7) -> None:
        self.topics = Topics(device_partitions=1)
        self.clock = DrivenClock(T0)
        self.log = MemoryLog(topic_specs(self.topics), self.clock)
        self.world = World(self.topics)
        self.model = Model()
        self.snapshot_seconds = snapshot_seconds
        self.start()

    def start(self) -> None:
        settings = GroupingSettings(range(1), 100_000, silence_seconds=900, snapshot_seconds=self.snapshot_seconds)
        self.metrics = Metrics()
        self.stage = GroupingStage(self.topics, settings, self.metrics)
        self.owner = Owner(
            self.log, "grouping", "grouping", self.stage, TopicPartition(self.topics.name("fleet"), 0), self.clock
        )
        self.owner.start()
        while self.owner.step(0):
            pass

    def step(
        self, at_ms: int, activity: Sequence[Any], crashes: Sequence[Any], notices: Sequence[tuple[str, list[int], int]]
    ) -> None:
        """Play one step in both."""
        entries: list[Entry] = []
        for version, pushed, from_ms in notices:
            entries += self.world.notices(T0 + 60 * SECOND, version, pushed, from_ms)
            rollout = msgspec.json.decode(entries[-1].value or b"", type=RolloutNotice).rollout
            self.model.watch(rollout, KEY, version, T0 + 60 * SECOND)
            if pushed:
                self.model.pushes.append((from_ms // 1000, KEY, version, [pseudonym(d) for d in pushed]))
        for word, reports in (("activity", activity), ("crashes", crashes)):
            if reports:
                entries += self.world.batches(word, reports, at_ms)
        self.clock.drive_to(at_ms)
        self.log.append([*entries, *self.world.ticks(at_ms)])
        for report in activity:
            self.model.activity(report, at_ms)
        self.model.push(at_ms)
        for crash in crashes:
            self.model.crash(crash, at_ms, at_ms)
        while self.owner.step(0):
            pass

    def compare(self, at_ms: int) -> None:
        """Assert that grouping's tables and totals are the model's."""
        cohorts = self.stage.partitions[0].population.cohorts
        assert set(cohorts.watched) == set(self.model.watched)
        for name, watched in cohorts.watched.items():
            found: Counter[tuple[str, int, bool]] = Counter()
            for place in np.flatnonzero(watched.table).tolist():
                cell = cohorts.cells.texts[place // 64]
                found[cell, place % 64 // 2, bool(place % 2)] = int(watched.table[place])
            assert found == self.model.at_risk(name, at_ms // 60_000 * 60)
            crashes = self.model.watched[name].crashes
            assert watched.crash_total == len(crashes)

    def crashes_said(self, rollout: str) -> Counter[tuple[str, int]]:
        """Return the first crashes as a reader of the log counts them, by arm and second."""
        counts: Counter[tuple[str, int]] = Counter()
        source, offset, held = TopicPartition(self.topics.name("cohorts"), 0), 0, 0
        while records := self.log.read(source, offset):
            offset = records[-1].offset + 1
            for step in (step_decoder.decode(record.value or b"") for record in records):
                if step.watermark_ms <= held:
                    continue
                assert step.since_ms == held
                held = step.watermark_ms
                for window in step.windows:
                    if window.rollout == rollout:
                        counts.update(
                            ("exposed" if crash.exposed else "control", crash.at_ms // 1000) for crash in window.crashes
                        )
        return counts


def reporter(played: Played, rng: np.random.Generator, device: int, now_ms: int) -> Report:
    """Return a random activity report: late, early, misnumbered, or as it should be."""
    world = played.world
    late = int(rng.choice([0, 0, 0, 40, 1300, 100_000], p=[0.3, 0.3, 0.2, 0.1, 0.08, 0.02])) * SECOND
    at = now_ms - late + int(rng.choice([0, 0, 90_000]))
    version = VERSIONS[int(rng.integers(3))]
    kind = rng.random()
    made: Any
    if kind < 0.25:
        made = world.offered(device, at, version)
    elif kind < 0.4:
        made = world.installed(device, at, version)
    else:
        listed = version if rng.random() < 0.4 else None
        made = world.check_in(device, at, listed, boot_at_ms=at - int(rng.choice([60, 7000, 200_000])) * SECOND)
    if rng.random() < 0.1:
        made.seq += int(rng.choice([-80, -3, -1, 5, 70, 1 << 40]))
    return made  # type: ignore[no-any-return]  # one of the three kinds above


def crash_of(played: Played, rng: np.random.Generator, device: int, now_ms: int) -> Report:
    """Return a random crash report."""
    at = now_ms - int(rng.choice([0, 0, 20, 1200, 97_000])) * SECOND
    version = [None, *VERSIONS][int(rng.integers(4))]
    made = played.world.bsod(device, at, version, bugcheck=int(rng.choice([0x50, 0x7E, 0xE2])))
    if made.versions and rng.random() < 0.5:
        made.versions[0].activated_at_ms = at - int(rng.integers(0, 3000)) * SECOND
    return made


def history(played: Played, seed: int, restarts: bool) -> int:
    """Play a random history with minute crossings, a blind gap, pushes and several rollouts; return its end."""
    rng = np.random.default_rng(seed)
    now = T0
    for turn in range(50):
        now += int(rng.choice([250, 3000, 25_000, 70_000, 700_000], p=[0.3, 0.3, 0.3, 0.06, 0.04]))
        notices = []
        if turn == 8:
            notices.append((NEW, list(range(90, 130)), now + 30_000))
        if turn == 30:
            notices.append((NEWER, list(range(60, 70)), T0))
        some = rng.integers(0, 110, int(rng.integers(0, 25))).tolist()
        activity = [reporter(played, rng, device, now) for device in some]
        activity += activity[:3]
        crashes = [crash_of(played, rng, device, now) for device in rng.integers(0, 140, 2).tolist()]
        crashes += crashes[:1]
        played.step(now, activity, crashes, notices)
        if restarts and rng.random() < 0.2:
            played.start()
        else:
            played.compare(now)
    return now


@pytest.mark.parametrize("seed", range(8))
def test_tables_and_first_crashes_are_the_models(seed: int) -> None:
    """Whatever reporters do, what is at risk and which crashes count is what a plain count says, step by step."""
    played = Played()
    history(played, seed, restarts=False)
    for name, watch in played.model.watched.items():
        assert played.crashes_said(name) == Counter(watch.crashes)
        assert watch.crashes
    assert played.metrics.value("grouped_total", outcome="duplicate") == played.model.duplicates


@pytest.mark.parametrize("seed", range(8, 16))
def test_they_are_after_restarts_too(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with restarts that write nothing, and chunks of eight rows, so that most are older than the memory."""
    monkeypatch.setattr("ingest.grouping.snapshot.CHUNK_ROWS", 8)
    played = Played(snapshot_seconds=90)
    now = history(played, seed, restarts=True)
    played.step(now + SECOND, [], [], [])
    played.compare(now + SECOND)
    for name, watch in played.model.watched.items():
        assert played.crashes_said(name) == Counter(watch.crashes)


def test_the_chunks_of_these_tests_are_not_the_real_size() -> None:
    """A chunk is 160 KB unpacked: within the 256 KB a record may have."""
    assert CHUNK_ROWS * 80 <= 256 << 10
    assert encoder.encode(1) == b"1"
