"""The product on many machines as its users meet it: `cordon up --distributed`, and each process by itself, on a Kafka.

As in `support.system`, nothing of the product is imported: what a test sees came over a socket, a terminal or a signal.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from support.system import CORDON, START_SECONDS_MAX, CordonEndedError, CordonProcess, environment


def kafka_settings(bootstrap: str, lane: str = "live", **settings: Any) -> dict[str, Any]:
    """Return the settings of processes on a broker of a test's, with ports of the system's choice."""
    return {
        "kafka_bootstrap": bootstrap,
        "kafka_replication": 1,
        "kafka_min_isr": 1,
        "lane": lane,
        "device_partitions": 4,
        "keyed_partitions": 2,
        "worker_port": 0,
        **settings,
    }


class DistributedProcess(CordonProcess):
    """`cordon up --distributed` on free ports."""

    # It waits for three or more processes, and for groups to deal out their partitions.
    start_seconds_max = 3 * START_SECONDS_MAX

    def __init__(self, data: Path, bootstrap: str, *, workers: int = 1, lane: str = "live", **settings: Any) -> None:
        """Prepare; `start` starts it. With `clickhouse_port` among the settings it has a store."""
        store = "clickhouse_port" in settings
        super().__init__(data, store=store, **kafka_settings(bootstrap, lane, **settings))
        self._workers = workers

    def command_line(self) -> list[str]:
        """Return the command line that starts it."""
        return [
            str(CORDON),
            "up",
            "--distributed",
            "--workers",
            str(self._workers),
            "--data",
            str(self.data),
            "--store" if self._store else "--no-store",
        ]

    def children(self) -> dict[str, int]:
        """Return the process ids of the living children by name."""
        assert self._process is not None
        return children_of(self._process.pid)

    def sight(self) -> dict[str, Any]:
        """Return what `/v1/sight` says."""
        answer = self.http.get(f"{self.urls['streams']}/v1/sight", headers=self.bearer("operator"))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def metrics_of(self, name: str) -> dict[str, float]:
        """Return the metrics of a worker or of `signals`."""
        lines = self.http.get(f"{self.urls[name]}/metrics").text.splitlines()
        pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {metric: float(value) for metric, _, value in pairs}


def children_of(parent: int) -> dict[str, int]:
    """Return the living `cordon` children of a process by name: `gateway`, `signals`, `worker-1`."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            words = (folder / "cmdline").read_bytes().split(b"\0")
            settings = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        state, parent_id = stat.rpartition(")")[2].split()[:2]
        if int(parent_id) != parent or state == "Z":
            continue
        name = next((word.decode() for word in words if word in (b"gateway", b"worker", b"signals")), "")
        if name == "worker":
            name = next(one.split(b"=")[1].decode() for one in settings if one.startswith(b"CORDON_WORKER_NAME="))
        if name:
            found[name] = int(folder.name)
    return found


def alive(pid: int) -> bool:
    """Tell whether a process lives."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], seconds: float) -> list[int]:
    """Return those of the processes that still live after at most so long."""
    until = time.monotonic() + seconds
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    return left


class SingleProcess:
    """`cordon gateway`, `cordon worker` or `cordon signals` by itself.

    Attributes:
        urls: listener name to URL.
    """

    def __init__(self, kind: str, data: Path, *arguments: str, **settings: object) -> None:
        """Prepare; `start` starts it."""
        self.kind, self.data = kind, data
        self.urls: dict[str, str] = {}
        self._command = [str(CORDON), kind, "--data", str(data), *arguments]
        self._environment = environment(**{"reports_port": 0, "streams_port": 0, "store": False, **settings})
        data.parent.mkdir(parents=True, exist_ok=True)
        self._out = data.parent / f"{data.name}-{kind}.out"
        self._err = data.parent / f"{data.name}-{kind}.err"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def said(self) -> str:
        """What it wrote to standard error, over all its lives."""
        return self._err.read_text() if self._err.exists() else ""

    @property
    def pid(self) -> int | None:
        """Its process id, once started."""
        return None if self._process is None else self._process.pid

    def set(self, **settings: object) -> None:
        """Change settings of the next start."""
        self._environment |= {f"CORDON_{name.upper()}": str(value) for name, value in settings.items()}

    def spawn(self) -> "SingleProcess":
        """Start it and return at once."""
        with self._out.open("wb") as out, self._err.open("ab") as err:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=out, stderr=err)
        return self

    def start(self) -> "SingleProcess":
        """Start it and return once it has said `ready`."""
        self.spawn()
        return self.wait_ready()

    def wait_ready(self) -> "SingleProcess":
        """Return once it has said `ready`.

        Raises:
            CordonEndedError: it ended instead, or took too long.
        """
        assert self._process is not None
        until = time.monotonic() + 3 * START_SECONDS_MAX
        while "ready" not in (lines := self._out.read_text().splitlines()):
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise CordonEndedError(f"cordon {self.kind} said {lines} and then: {self.said[-2000:]}")
            time.sleep(0.02)
        words = [line.split() for line in lines]
        self.urls = {pair[0]: pair[1] for pair in words if len(pair) == 2 and pair[1].startswith("http")}
        return self

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Return its exit code once it has ended."""
        assert self._process is not None
        return self._process.wait(seconds)

    def terminate(self, seconds: float = 30.0) -> int:
        """Ask it to end, and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def get(self, listener: str, path: str) -> httpx2.Response:
        """Ask one of its listeners."""
        return httpx2.get(f"{self.urls[listener]}{path}", timeout=20.0)


@contextmanager
def running_distributed(
    data: Path, bootstrap: str, *, workers: int = 1, **settings: Any
) -> Iterator[DistributedProcess]:
    """Run `cordon up --distributed` while the block lasts, and leave no process behind."""
    process = DistributedProcess(data, bootstrap, workers=workers, **settings)
    try:
        process.start()
        yield process
    finally:
        process.close()


def stop_signal(pid: int) -> None:
    """Freeze a process: alive, and silent."""
    os.kill(pid, signal.SIGSTOP)


def continue_signal(pid: int) -> None:
    """Let a frozen process go on."""
    os.kill(pid, signal.SIGCONT)
