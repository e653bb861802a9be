"""A Cordon in a process of its own for benches: `cordon up`, its URLs, its tokens, its metrics."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from ingest.gateway.tenants import TokenBook

READY_SECONDS_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running Cordon.

    Attributes:
        token: speaks for every tenant in every role.
        ready_seconds: from its start to its `ready`.
    """

    reports: str
    streams: str
    token: str
    keys: Path
    data: Path
    pid: int
    ready_seconds: float

    def metric(self, name: str) -> float:
        """Return a metric's value, by its full name with labels; 0 where it was never set."""
        text = httpx2.get(f"{self.reports}/metrics", trust_env=False).text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    def wait_counted(self, reports: float, seconds_max: float) -> None:
        """Block until grouping has counted `reports` reports.

        Raises:
            TimeoutError: it has not, in time.
        """
        deadline = time.monotonic() + seconds_max
        while self.metric('cordon_grouped_total{outcome="accepted"}') < reports:
            if time.monotonic() > deadline:
                raise TimeoutError(f"grouping has not counted {reports:.0f} reports in {seconds_max:.0f} s")
            time.sleep(0.02)

    def rss_bytes(self) -> int:
        """Return the process's resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def served(data: Path | None = None, *, store: bool = False, **settings: object) -> Iterator[Served]:
    """Run `cordon up` in the live lane while the block lasts, with settings by name."""
    with tempfile.TemporaryDirectory(prefix="cordon-bench-") as folder:
        home = data or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        book = TokenBook.load(home / "tokens.toml")
        token = book.add(f"bench-{time.monotonic_ns()}", ["*"], ["report", "rollout", "operator"])
        given = {"reports_port": 0, "streams_port": 0, "query_port": 0, "store": str(store).lower(), **settings}
        environment = os.environ | {f"CORDON_{name.upper()}": str(value) for name, value in given.items()}
        started = time.monotonic()
        command = [sys.executable, "-m", "deploy.cli", "up", "--data", str(home)]
        # The command is our own, built two lines above.
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            try:
                urls = _urls(process)
                ready = time.monotonic() - started
                keys = home / "keys.json"
                keys.write_bytes(httpx2.get(f"{urls['streams']}/v1/keys", trust_env=False).content)
                yield Served(urls["reports"], urls["streams"], token, keys, home, process.pid, ready)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def _urls(process: "subprocess.Popen[str]") -> dict[str, str]:
    urls: dict[str, str] = {}
    assert process.stdout is not None
    for line in process.stdout:
        name, _, url = line.strip().partition(" ")
        urls[name] = url.strip()
        if name == "ready":
            return urls
    raise RuntimeError(f"cordon up ended with {process.wait()} before it was ready")
