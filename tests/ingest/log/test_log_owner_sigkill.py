"""An Owner killed with SIGKILL again and again counts every record exactly once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ingest.clock import WallClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.owner import Owner
from support import log_counter
from support.counting_stage import IN, OUT, SPECS, STATE, CountingStage

ROUNDS = 8
REPOSITORY = Path(__file__).parents[3]


def _run_and_kill(directory: Path, after_seconds: float) -> None:
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    command = [sys.executable, str(Path(log_counter.__file__)), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(after_seconds)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.fault
@pytest.mark.slow
def test_an_owner_counts_exactly_through_sigkill(tmp_path: Path) -> None:
    generator = random.Random(291)
    for _ in range(ROUNDS):
        _run_and_kill(tmp_path, generator.uniform(0.02, 0.25))
    log = EmbeddedLog(tmp_path, SPECS, WallClock())
    stage = CountingStage()
    owner = Owner(log, "count/0", "count", stage, STATE, WallClock())
    owner.start()
    assert all(position > 0 for position in owner.positions.values()), "there was a state to go on from"
    while owner.step(0):
        pass
    truth = Counter(
        (record.value or b"").decode() for source in IN for record in log.read(source, 0, 10_000_000, 1 << 30)
    )
    assert sum(truth.values()) > ROUNDS * 20
    assert {word: stage.count(word) for word in truth} == truth
    said = {(record.key or b"").decode(): int(record.value or b"0") for record in log.read(OUT, 0, 10_000_000, 1 << 30)}
    assert said == truth, "the last word on each is the whole count"
    log.close()
