"""Grouping against a plain model of it: random histories of hostile reporters, counted afresh at every step."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from ingest.minutes import minute_of, offset_seconds
from ingest.topics import Topics
from ingest.windows import FirstCrash, Step, step_decoder
from support.grouping_model import Model
from support.world import NEW, OLD, PRODUCT, T0, VENDOR, World, pseudonym

SECOND = 1000
NEWER = "291.32"
SENSOR, PANEL, AGENT = "falcon-sensor", "panel", "agent"
VERSIONS = {PRODUCT: (OLD, NEW, NEWER), SENSOR: ("7.10", "7.11"), PANEL: ("1", "2"), AGENT: ("4", "5")}


@dataclass
class Notice:
    """A rollout as a test begins or closes it."""

    product: str
    version: str
    origin_ms: int = T0 + 60 * SECOND
    pushed: list[int] = field(default_factory=list)
    from_ms: int = T0
    closed: bool = False


class Played:
    """One partition of grouping and its model, fed with the same history; restarted at will."""

    def __init__(self, snapshot_seconds: int = 7) -> None:
        self.topics = Topics(device_partitions=1)
        self.clock = DrivenClock(T0)
        self.log = MemoryLog(topic_specs(self.topics), self.clock)
        self.world = World(self.topics)
        self.model = Model()
        self.snapshot_seconds = snapshot_seconds
        self.at_ms = 0
        self.windows_compared = 0
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

    def step(self, at_ms: int, activity: Sequence[Any], crashes: Sequence[Any], notices: Sequence[Notice]) -> None:
        """Play one step in both."""
        entries: list[Entry] = []
        for one in notices:
            entries += self.world.notices(
                one.origin_ms, one.version, one.pushed, one.from_ms, one.product, closed=one.closed
            )
            rollout = msgspec.json.decode(entries[-1].value or b"", type=RolloutNotice).rollout
            key = f"{VENDOR}/{one.product}"
            if one.closed:
                self.model.close(rollout, at_ms)
            else:
                self.model.watch(rollout, key, one.version, one.origin_ms)
            if one.pushed:
                names = [pseudonym(d) for d in one.pushed]
                self.model.pushes.append((one.from_ms // 1000, key, one.version, names))
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
        self.model.end_step(at_ms // 1000, self.at_ms // 1000)
        self.at_ms = at_ms
        while self.owner.step(0):
            pass

    def compare(self, at_ms: int) -> None:
        """Assert that grouping's tables, rivals, margins and totals are the model's."""
        cohorts = self.stage.partitions[0].population.cohorts
        assert set(cohorts.watched) == set(self.model.watched)
        for name, watched in cohorts.watched.items():
            found: Counter[tuple[str, int, bool]] = Counter()
            for place in np.flatnonzero(watched.table).tolist():
                found[watched.era.text(place // 64), place % 64 // 2, bool(place % 2)] += int(watched.table[place])
            assert found == self.model.at_risk(name, own_minute(name, at_ms))
            assert tuple(rival.rollout for rival in watched.era.rivals) == self.model.watched[name].rivals[-1][1]
            crashes = self.model.watched[name].crashes
            assert watched.crash_total == len(crashes)
        self._compare_said(at_ms)

    def _compare_said(self, at_ms: int) -> None:
        """Assert that full windows of the last step say the model's counts, by cell and by margin."""
        (step,) = self.steps(last=True)
        assert step.watermark_ms == at_ms
        for window in step.windows:
            minute = own_minute(window.rollout, at_ms)
            said: list[Counter[tuple[str, int, bool]]] = [Counter(), Counter()]
            rows_of: list[list[Any]] = [list(window.at_risk), list(window.margins)]
            for counter, rows in zip(said, rows_of, strict=True):
                for name, group, exposed, control in (msgspec.structs.astuple(row) for row in rows):
                    assert counter[name, group, True] == counter[name, group, False] == 0, "said once"
                    counter.update({(name, group, True): exposed, (name, group, False): control})
            if window.full:
                assert +said[0] == self.model.at_risk(window.rollout, minute)
                assert +said[1] == self.model.margins(window.rollout, minute)
                self.windows_compared += 1
            else:
                assert not window.margins

    def steps(self, last: bool = False) -> list[Step]:
        """Return the steps in the log, each once: a reader passes over what a restart says again."""
        source, offset, held = TopicPartition(self.topics.name("cohorts"), 0), 0, 0
        if last:
            (record,) = self.log.read(source, self.log.bounds(source)[1] - 1)
            return [step_decoder.decode(record.value or b"")]
        found: list[Step] = []
        while records := self.log.read(source, offset):
            offset = records[-1].offset + 1
            for step in (step_decoder.decode(record.value or b"") for record in records):
                if step.watermark_ms > held:
                    assert step.since_ms == held
                    held = step.watermark_ms
                    found.append(step)
        return found

    def check_crashes(self) -> None:
        """Assert that first crashes are the model's, each in its arm, cell and margins."""
        crashes: dict[str, list[FirstCrash]] = {}
        for step in self.steps():
            for window in step.windows:
                crashes.setdefault(window.rollout, []).extend(window.crashes)
        for name, watch in self.model.known.items():
            told = [
                ("exposed" if one.exposed else "control", one.at_ms // 1000, one.cell, one.build, one.model)
                for one in crashes[name]
            ]
            assert Counter(told) == Counter(watch.placed)
            assert [one[:2] for one in watch.placed] == watch.crashes
            assert watch.crashes


def own_minute(rollout: str, at_ms: int) -> int:
    return minute_of(at_ms // SECOND, offset_seconds(rollout))


def reporter(played: Played, rng: np.random.Generator, device: int, now_ms: int) -> Report:
    """Return a random activity report: late, early, misnumbered, or as it should be."""
    world = played.world
    late = int(rng.choice([0, 0, 0, 40, 1300, 100_000], p=[0.3, 0.3, 0.2, 0.1, 0.08, 0.02])) * SECOND
    at = now_ms - late + int(rng.choice([0, 0, 90_000]))
    product = list(VERSIONS)[int(rng.integers(4))]
    version = VERSIONS[product][int(rng.integers(len(VERSIONS[product])))]
    kind = rng.random()
    made: Any
    if kind < 0.25:
        made = world.offered(device, at, version, product)
    elif kind < 0.4:
        made = world.installed(device, at, version, product)
    else:
        listed = VERSIONS[PRODUCT][int(rng.integers(3))] if rng.random() < 0.4 else None
        also = {p: VERSIONS[p][int(rng.integers(2))] for p in (SENSOR, PANEL, AGENT) if rng.random() < 0.2}
        changed = (
            {} if rng.random() < 0.8 else {"os_build": "26100.1", "model": rng.choice(["", "other", "new"]).item()}
        )
        boot_at_ms = at - int(rng.choice([60, 7000, 200_000])) * SECOND
        made = world.check_in(device, at, listed, also, boot_at_ms=boot_at_ms, **changed)
    if rng.random() < 0.1:
        made.seq += int(rng.choice([-80, -3, -1, 5, 70, 1 << 40]))
    return made  # type: ignore[no-any-return]  # one of the three kinds above


def crash_of(played: Played, rng: np.random.Generator, device: int, now_ms: int) -> Report:
    """Return a random crash report."""
    at = now_ms - int(rng.choice([0, 0, 20, 1200, 97_000])) * SECOND
    product = list(VERSIONS)[int(rng.integers(4))]
    version = [None, *VERSIONS[product]][int(rng.integers(1 + len(VERSIONS[product])))]
    made = played.world.bsod(device, at, version, product, bugcheck=int(rng.choice([0x50, 0x7E, 0xE2])))
    if made.versions and rng.random() < 0.5:
        made.versions[0].activated_at_ms = at - int(rng.integers(0, 3000)) * SECOND
    return made


def history(played: Played, seed: int, restarts: bool) -> int:
    """Play a random history with blind gaps, pushes and rollouts that overlap, begin and close; return its end."""
    rng = np.random.default_rng(seed)
    now = T0
    for turn in range(50):
        now += int(rng.choice([250, 3000, 25_000, 70_000, 700_000], p=[0.3, 0.3, 0.3, 0.06, 0.04]))
        notices = {
            8: [Notice(PRODUCT, NEW, pushed=list(range(90, 130)), from_ms=now + 30_000)],
            14: [Notice(SENSOR, "7.11", origin_ms=T0 + 61 * SECOND)],
            22: [Notice(PANEL, "2", origin_ms=T0 + 30 * SECOND, pushed=list(range(20)))],
            30: [Notice(PRODUCT, NEWER, pushed=list(range(60, 70)))],
            34: [Notice(AGENT, "5", origin_ms=T0 + 62 * SECOND)],
            42: [Notice(SENSOR, "7.11", closed=True)],
        }.get(turn, [])
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
    played.check_crashes()
    assert played.windows_compared > 20
    assert any("|r-" in placed[2] for watch in played.model.watched.values() for placed in watch.placed)
    assert played.metrics.value("grouped_total", outcome="duplicate") == played.model.duplicates


@pytest.mark.parametrize("seed", range(8, 16))
def test_they_are_after_restarts_too(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with restarts that write nothing, and chunks of eight rows, so that most are older than the memory."""
    monkeypatch.setattr("ingest.grouping.snapshot.CHUNK_ROWS", 8)
    played = Played(snapshot_seconds=90)
    now = history(played, seed, restarts=True)
    played.step(now + SECOND, [], [], [])
    played.compare(now + SECOND)
    played.check_crashes()


def test_the_chunks_of_these_tests_are_not_the_real_size() -> None:
    """A chunk is 160 KB unpacked: within the 256 KB a record may have."""
    assert CHUNK_ROWS * 80 <= 256 << 10
    assert encoder.encode(1) == b"1"
