"""The test server as a child process: started, ordered about, killed and started again on its port and folder."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[3]
START_SECONDS = 30.0


class ClickHouseProcess:
    """One server process.

    Attributes:
        port: its native-protocol port, the same after `restart`.
    """

    def __init__(self, data: Path, *options: str) -> None:
        """Start it and wait until it answers."""
        self._data = data
        self._options = options
        self.port = 0
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "support.clickhouse", "--data", str(self._data), "--port", str(self.port)]
        path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        self._log = (self._data.parent / f"{self._data.name}.log").open("a")
        self._process = subprocess.Popen(
            [*command, *self._options], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE,
            stderr=self._log, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        if len(words) != 4:
            self.close()
            raise RuntimeError(f"the ClickHouse test server did not start: see {self._log.name}")
        self.port, self._control = int(words[1]), int(words[3])

    def order(self, line: str) -> str:
        """Order a fault, or ask; see `faults` for what can be ordered."""
        with socket.create_connection(("127.0.0.1", self._control), 10) as client:
            client.sendall(f"{line}\n".encode())
            answer = client.makefile("r", encoding="utf-8").readline().strip()
        if answer.startswith("error"):
            raise ValueError(answer)
        return answer

    def inserts(self) -> int:
        """Return how many inserts it has been asked for."""
        return int(self.order("count").split()[0])

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        self._wait()

    def restart(self) -> None:
        """Start it again on the same folder and port."""
        self._start()

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.terminate()
        self._wait()

    def _wait(self) -> None:
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(START_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> "ClickHouseProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
