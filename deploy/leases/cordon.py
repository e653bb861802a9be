"""A Cordon of one's own for a demonstration: a child process on free ports, killed and started again at will."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2

START_SECONDS_MAX = 60.0
_HTTP_SECONDS = 10.0


class DemoError(Exception):
    """The demonstration could not be run; the message says why."""


class CordonChild:
    """`cordon up` without a store, on ports that stay the same over its lives."""

    def __init__(self, data: Path, lease_seconds: int) -> None:
        """Prepare; `start` starts it."""
        self.data = data
        reports_port, streams_port = _free_port(), _free_port()
        self.reports_url, self.url = f"http://127.0.0.1:{reports_port}", f"http://127.0.0.1:{streams_port}"
        plain = {name: value for name, value in os.environ.items() if not name.startswith("CORDON_")}
        self.environment = plain | {
            "CORDON_REPORTS_PORT": str(reports_port),
            "CORDON_STREAMS_PORT": str(streams_port),
            "CORDON_LEASE_SECONDS": str(lease_seconds),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def token(self) -> str:
        """The token of a rollout system."""
        return (self.data / "rollouts.token").read_text().strip()

    @property
    def key_file(self) -> Path:
        """The public keys, as an operator would hand them out."""
        return self.data / "keys" / "killswitch.public.json"

    def start(self) -> None:
        """Start it, and return once it is ready.

        Raises:
            DemoError: it ends, or takes too long.
        """
        said = self.data.with_suffix(".out")
        command = [sys.executable, "-m", "deploy.cli", "up", "--data", str(self.data), "--no-store"]
        with said.open("wb") as out, self.data.with_suffix(".err").open("ab") as err:
            self._process = subprocess.Popen(  # noqa: S603  # our own command line
                command, env=self.environment, stdout=out, stderr=err, start_new_session=True
            )
        until = time.monotonic() + START_SECONDS_MAX
        while "ready" not in said.read_text().splitlines():
            if self._process.poll() is not None or time.monotonic() > until:
                raise DemoError(f"cordon up did not start: {self.data.with_suffix('.err').read_text()[-1000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would; what it started ends with it."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def declare(self) -> str:
        """Declare a rollout as a rollout system does, and return its id.

        Raises:
            DemoError: it is refused.
        """
        starts_at_ms = time.time_ns() // 1_000_000 + 60_000
        body = {
            "vendor": "acme",
            "product": "edr",
            "update_kind": "driver",
            "version": "7.1",
            "rings": [{"name": "canary", "starts_at_ms": starts_at_ms}],
        }
        answer = httpx2.post(
            f"{self.reports_url}/v1/rollouts",
            json=body,
            headers={"authorization": f"Bearer {self.token}"},
            timeout=_HTTP_SECONDS,
        )
        if answer.status_code != 201:
            raise DemoError(f"the rollout was refused ({answer.status_code}): {answer.text}")
        return str(answer.json()["rollout"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
