"""A supervised child: what it tells is heard, it is started again when it dies, and ends with its parent."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from deploy.distributed.child import BACKOFF_SECONDS_MAX, CONFIGURATION_CODE, Child, ChildPlan

TELLS = "print('reports  http://127.0.0.1:4711'); print('ready', flush=True);"
SLEEPS = f"import time; {TELLS} time.sleep(60)"


class Rig:
    def __init__(self, program: str) -> None:
        self.failures: list[str] = []
        self.pauses: list[float] = []
        plan = ChildPlan("gateway", ["-c", program], {"CORDON_LANE": "t"})
        self.child = Child(plan, [sys.executable], dict(os.environ), self.failures.append, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0.01)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  # what is waited for happens in another process
            await asyncio.sleep(0.01)


def test_what_it_tells_is_heard_and_it_ends_when_asked() -> None:
    async def run() -> None:
        rig = Rig(SLEEPS)
        rig.child.start()
        await until(rig.child.ready.is_set)
        assert rig.child.urls == {"reports": "http://127.0.0.1:4711"}
        pid = rig.child.pid
        assert pid is not None
        await rig.child.stop()
        assert rig.child.pid is None
        assert not _lives(pid)
        assert (rig.failures, rig.pauses) == ([], [])

    asyncio.run(run())


def test_one_that_dies_is_started_again_where_it_listened_after_longer_and_longer_pauses() -> None:
    async def run() -> None:
        rig = Rig(f"import os; {TELLS} print('port http' + os.environ.get('CORDON_REPORTS_PORT', '-'), flush=True)")
        rig.child.start()
        await until(lambda: len(rig.pauses) >= 3)
        await rig.child.stop()
        assert rig.pauses[:3] == [0.5, 1.0, 2.0]
        assert max(rig.pauses) <= BACKOFF_SECONDS_MAX
        assert rig.child.urls["port"] == "http4711"
        assert rig.failures == []

    asyncio.run(run())


def test_a_killed_one_comes_back() -> None:
    async def run() -> None:
        rig = Rig(SLEEPS)
        rig.child.start()
        await until(rig.child.ready.is_set)
        before = rig.child.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await until(lambda: rig.child.pid not in (None, before))
        await rig.child.stop()

    asyncio.run(run())


def test_a_wrong_setting_or_a_failed_start_is_not_tried_again() -> None:
    async def run(program: str) -> str:
        rig = Rig(program)
        rig.child.start()
        await until(lambda: rig.failures)
        await rig.child.stop()
        assert rig.pauses == []
        return rig.failures[0]

    assert f"code {CONFIGURATION_CODE}" in asyncio.run(run(f"{TELLS} raise SystemExit({CONFIGURATION_CODE})"))
    assert "gateway ended with code 1" in asyncio.run(run("raise SystemExit(1)"))


def test_a_leashed_process_is_killed_with_its_parent() -> None:
    """Even by SIGKILL, which gives the parent no time to say anything."""
    leashed = "import os, sys, time; from deploy.distributed.leash import leash; leash(int(sys.argv[1])); "
    leashed += "print(os.getpid(), flush=True); time.sleep(60)"
    parent = (
        "import os, subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-c', {leashed!r}, str(os.getpid())]); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        started.kill()
        deadline = time.monotonic() + 5
        while _lives(pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
