"""Grouping killed with SIGKILL again and again says exactly what a plain count of the same reports says."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.clock import WallClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import TopicPartition
from ingest.log.specs import topic_specs
from support import grouping_child
from support.grouping_child import TOPICS
from support.grouping_history import History, Told

KILLS = 8
STEPS = 240
REPOSITORY = Path(__file__).parents[3]


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


@pytest.mark.fault
@pytest.mark.slow
def test_counts_are_exact_through_sigkill(tmp_path: Path) -> None:
    """Exposed, control, and crashes by arm and second, after many kills at random moments."""
    history, generator = History(TOPICS), random.Random(291)
    log = EmbeddedLog(tmp_path, topic_specs(TOPICS), WallClock())
    for _ in range(STEPS):
        log.append(history.step())
    log.close()
    kills = 0
    while kills < KILLS and not _run(tmp_path, generator.randrange(3, 45)):
        kills += 1
    assert kills >= 6
    while not _run(tmp_path, None):
        pass
    log = EmbeddedLog(tmp_path, topic_specs(TOPICS), WallClock())
    told = Told(history.rollout)
    told.read(log.read(TopicPartition(TOPICS.name("cohorts"), 0), 0, 1_000_000, 1 << 30))
    assert log.bounds(TopicPartition(TOPICS.name("fleet"), 0))[1] > 20, "state was written between the kills"
    log.close()
    assert told.at_risk == history.expected_at_risk()
    assert told.crashes == history.expected_crashes()
    assert len(told.crashes) > 10
    assert len(set().union(*told.generations.values())) > 3
