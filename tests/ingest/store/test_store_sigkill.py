"""Real SIGKILLs between plan, insert and commit: the store ends up exact."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.clock import WallClock
from ingest.events import BootLoop, Bsod
from ingest.log.embedded import EmbeddedLog
from ingest.log.specs import topic_specs
from ingest.store.chdb import ChdbStore
from support import store_child
from support.store_fleet import Fleet, counted, recount

ROOT = Path(__file__).parents[3]
POINTS = ("after-plan:2", "before-insert:3", "after-insert:4", "before-commit:2", "milliseconds:60")


def run_child(log: Path, store: Path, point: str) -> int:
    """Run the sink in a process of its own and return how it ended."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    command = [sys.executable, str(Path(store_child.__file__)), str(log), str(store), point]
    done = subprocess.run(
        command, check=False, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_sigkill_between_any_two_steps_loses_and_doubles_nothing(tmp_path: Path) -> None:
    fleet = Fleet(42)
    log = EmbeddedLog(tmp_path / "log", topic_specs(store_child.TOPICS), WallClock())
    log.append(fleet.entries(store_child.TOPICS, batches=150, size=20))
    log.close()
    ends = [run_child(tmp_path / "log", tmp_path / "store", point) for point in POINTS]
    assert ends[:4] == [-signal.SIGKILL] * 4
    assert run_child(tmp_path / "log", tmp_path / "store", "none") == 0
    store = ChdbStore(tmp_path / "store", "cordon")
    try:
        assert counted(store) == recount(fleet.made)
        crashes = sum(isinstance(report, Bsod | BootLoop) for report in fleet.made)
        assert store.query("SELECT count() FROM crashes FINAL").rows == [[crashes]]
        written = store.query("SELECT count() FROM crashes").rows[0][0]
        assert written >= crashes
    finally:
        store.close()
