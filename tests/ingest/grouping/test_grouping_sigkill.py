"""Grouping killed with SIGKILL again and again says exactly what a plain count of the same reports says."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingest.clock import WallClock
from ingest.events import RolloutNotice
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import TopicPartition
from ingest.log.specs import topic_specs
from ingest.windows import step_decoder
from support import grouping_child
from support.grouping_child import TOPICS
from support.grouping_model import Model
from support.world import KEY, NEW, OLD, T0, World, pseudonym

SECOND = 1000
KILLS = 8
STEPS = 240
DEVICES = 120
REPOSITORY = Path(__file__).parents[3]


def _prepare(directory: Path, model: Model) -> tuple[str, int]:
    """Write a history to a log and tell it to the model; return the rollout and the time of its end."""
    generator = random.Random(719)
    log, world, rollout, now = EmbeddedLog(directory, topic_specs(TOPICS), WallClock()), World(TOPICS), "", T0
    for turn in range(STEPS):
        now += generator.choice([250, 1000, 9000])
        entries = []
        if turn == 20:
            pushed = range(DEVICES, DEVICES + 30)
            entries = world.notices(T0, NEW, pushed, now + 20 * SECOND)
            rollout = msgspec.json.decode(entries[0].value or b"", type=RolloutNotice).rollout
            model.watch(rollout, KEY, NEW, T0)
            model.pushes.append(((now + 20 * SECOND) // 1000, KEY, NEW, [pseudonym(device) for device in pushed]))
        activity: list[Any] = []
        for _ in range(6):
            device = generator.randrange(min(DEVICES, 5 + turn))
            if turn > 20 and generator.random() < 0.2:
                activity.append(world.offered(device, now))
            else:
                activity.append(world.check_in(device, now - 30 * SECOND, generator.choice([None, OLD])))
        activity += activity[:2]
        crashes: list[Any] = []
        if turn > 25 and generator.random() < 0.3:
            named = generator.choice([None, OLD, NEW])
            crashes = [world.bsod(generator.randrange(DEVICES + 40), now - 5 * SECOND, named)] * 2
        for word, reports in (("activity", activity), ("crashes", crashes)):
            entries += world.batches(word, reports, now) if reports else []
        log.append([*entries, *world.ticks(now)])
        for report in activity:
            model.activity(report, now)
        model.push(now)
        for crash in crashes:
            model.crash(crash, now, now)
    log.close()
    return rollout, now


def _run(directory: Path, kill_after: int | None) -> bool:
    """Group in a process of its own, kill it after so many steps; return whether it came through."""
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    command = [sys.executable, str(Path(grouping_child.__file__)), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        for number, line in enumerate(child.stdout):
            if line == b"through\n":
                return True
            if number == kill_after:
                child.send_signal(signal.SIGKILL)
                child.wait()
                assert child.returncode == -signal.SIGKILL
                return False
    raise AssertionError(f"grouping ended by itself with {child.returncode}")


def _told(log: EmbeddedLog, rollout: str) -> tuple[Counter[tuple[str, int, bool]], Counter[tuple[str, int]], int]:
    """Return devices at risk, first crashes and the number of restarts, as a reader of the log counts them."""
    at_risk: dict[tuple[int, str, int], tuple[int, int]] = {}
    crashes: Counter[tuple[str, int]] = Counter()
    held: dict[int, int] = {}
    generations = set()
    for record in log.read(TopicPartition(TOPICS.name("cohorts"), 0), 0, 1_000_000, 1 << 30):
        step = step_decoder.decode(record.value or b"")
        generations.add(step.generation)
        if step.watermark_ms <= held.get(step.partition, 0):
            continue
        assert step.since_ms == held.get(step.partition, 0)
        held[step.partition] = step.watermark_ms
        for window in step.windows:
            assert window.rollout == rollout
            if window.full:
                at_risk = {key: row for key, row in at_risk.items() if key[0] != step.partition}
            for row in window.at_risk:
                at_risk[step.partition, row.cell, row.group] = (row.exposed, row.control)
            crashes.update(("exposed" if one.exposed else "control", one.at_ms // 1000) for one in window.crashes)
    sums: Counter[tuple[str, int, bool]] = Counter()
    for (_, cell, group), (exposed, control) in at_risk.items():
        sums[cell, group, True] += exposed
        sums[cell, group, False] += control
    return +sums, crashes, len(generations)


@pytest.mark.fault
@pytest.mark.slow
def test_counts_are_exact_through_sigkill(tmp_path: Path) -> None:
    """Exposed, control, and crashes by arm and second, after many kills at random moments."""
    model, generator = Model(), random.Random(291)
    rollout, end_ms = _prepare(tmp_path, model)
    kills = 0
    while kills < KILLS and not _run(tmp_path, generator.randrange(3, 45)):
        kills += 1
    assert kills >= 6
    while not _run(tmp_path, None):
        pass
    log = EmbeddedLog(tmp_path, topic_specs(TOPICS), WallClock())
    at_risk, crashes, generations = _told(log, rollout)
    assert log.bounds(TopicPartition(TOPICS.name("fleet"), 0))[1] > 20, "state was written between the kills"
    log.close()
    assert at_risk == model.at_risk(rollout, end_ms // 60_000 * 60)
    assert crashes == Counter(model.watched[rollout].crashes)
    assert len(crashes) > 10
    assert generations > 3
