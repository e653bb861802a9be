"""The watchdog ends a process that stands still beside work, and leaves alone what gets on or has nothing to do."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deploy.workers.driver import Standing
from deploy.workers.watchdog import EXIT_CODE, Heartbeat, Watchdog
from ingest.metrics import Metrics
from support import stalling_child

REPOSITORY = Path(__file__).parents[3]


class Rig:
    """A watchdog on a clock of the test's, and what it watches."""

    def __init__(self) -> None:
        self.now = 0.0
        self.standing = Standing("grouping/0", "grouping", 5, waiting=True)
        self.metrics = Metrics()
        self.watchdog = Watchdog(20, self.metrics, monotonic=lambda: self.now, backstop=False)
        self.watchdog.watch(lambda: [self.standing])

    def after(self, seconds: float) -> list[str]:
        """Look as often as the thread would, and return what was told."""
        told = []
        while seconds > 0:
            self.now = round(self.now + min(1.0, seconds), 3)
            seconds -= 1.0
            told += self.watchdog.look()
        return told

    def set(self, progress: int, *, waiting: bool = True) -> None:
        self.standing = Standing("grouping/0", "grouping", progress, waiting)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_stands_still_beside_work_is_a_stall_told_once(rig: Rig) -> None:
    rig.watchdog.look()
    assert rig.after(19.9) == []
    (told,) = rig.after(0.1)
    assert "grouping/0" in told
    assert "20.0 s" in told
    assert rig.after(1) == []
    assert rig.metrics.value("stalls_total", stage="grouping") == 1


def test_what_gets_on_however_slowly_is_none(rig: Rig) -> None:
    for progress in range(100):
        rig.set(progress)
        assert rig.after(19) == []


def test_what_has_nothing_to_do_is_none_and_its_time_begins_with_work(rig: Rig) -> None:
    rig.set(5, waiting=False)
    assert rig.after(1000) == []
    rig.set(5, waiting=True)
    assert rig.after(1) == []
    assert rig.after(18) == []
    assert len(rig.after(1)) == 1


def test_what_is_gone_and_comes_again_begins_anew(rig: Rig) -> None:
    rig.after(1)
    kept, rig.watchdog._watched = rig.watchdog._watched, []
    rig.after(19)
    rig.watchdog._watched = kept
    assert rig.after(19) == []


def test_a_process_that_was_paused_as_a_whole_is_none(rig: Rig) -> None:
    rig.after(15)
    rig.now += 100
    assert rig.watchdog.look() == []
    assert rig.after(19) == []
    assert len(rig.after(1)) == 1


def test_a_watched_thing_that_raises_does_not_end_the_watch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()
    codes: list[int] = []
    raising = threading.Event()
    raising.set()

    def standings() -> list[Standing]:
        if raising.is_set():
            raise RuntimeError("no word")
        return [Standing("share", "grouping", 1, waiting=True)]

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    with (tmp_path / "trace").open("w+") as trace:
        watchdog = Watchdog(0.2, Metrics(), end=end, trace=trace, backstop=False)
        watchdog.watch(standings)
        watchdog.start()
        time.sleep(0.1)
        raising.clear()
        assert ended.wait(5)
        watchdog.stop()
    assert codes[0] == EXIT_CODE
    assert "the watchdog can't look" in caplog.text
    assert "share has something to get on with" in caplog.text
    assert "Thread 0x" in (tmp_path / "trace").read_text()


def test_a_heart_beats_while_its_loop_runs() -> None:
    async def beating() -> tuple[Standing, Standing, Standing]:
        heartbeat = Heartbeat()
        heartbeat.start()
        first = heartbeat.standing()
        await asyncio.sleep(0.7)
        second = heartbeat.standing()
        heartbeat.stop()
        return first, second, heartbeat.standing()

    first, second, stopped = asyncio.run(beating())
    assert first.waiting
    assert second.progress > first.progress
    assert not stopped.waiting


def run_child(how: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    command = [sys.executable, str(Path(stalling_child.__file__)), "0.8", how]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=50, check=False)


@pytest.mark.fault
def test_a_process_whose_event_loop_is_blocked_ends_and_says_where() -> None:
    ended = run_child("block")
    assert ended.stdout == "running\n"
    assert ended.returncode == EXIT_CODE
    assert "event loop has something to get on with" in ended.stderr
    assert "stalling_child.py" in ended.stderr, "the stack shows where it hangs"


@pytest.mark.fault
def test_a_process_that_nothing_of_python_can_run_in_ends_too() -> None:
    ended = run_child("hold")
    assert ended.stdout == "running\n"
    assert ended.returncode == 1
    assert "Timeout (0:00:02" in ended.stderr


@pytest.mark.fault
def test_a_process_that_gets_on_is_left_alone() -> None:
    ended = run_child("busy")
    assert (ended.returncode, ended.stderr) == (0, "")
