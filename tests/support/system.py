"""The product as its users meet it: a real `cordon` process, its HTTP listeners and its command line.

Nothing of the product is imported here, so that a system test can only pass by what goes over a socket or a terminal.
"""

import os
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec

CORDON = Path(sysconfig.get_path("scripts")) / "cordon"
START_SECONDS_MAX = 40.0
HTTP_SECONDS = 20.0
JSON = "application/json"
NDJSON = "application/x-ndjson"


class CordonEndedError(Exception):
    """The process ended though it should run; the message holds what it said."""


def environment(**settings: object) -> dict[str, str]:
    """Return this process's environment with these settings and no other of Cordon's."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CORDON_")}
    return plain | {f"CORDON_{name.upper()}": str(value) for name, value in settings.items()}


def cordon(*arguments: str | Path, seconds: float = 60.0, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run one `cordon` command to its end and return its exit code and what it said."""
    return subprocess.run(
        [CORDON, *map(str, arguments)],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


class CordonProcess:
    """`cordon up` on free ports; started again on the same data folder as often as a test likes.

    Attributes:
        data: its data folder.
        urls: listener name to URL, of the latest start.
        start_seconds: what the latest start took until `ready`.
        start_seconds_max: what it may take.
    """

    start_seconds_max = START_SECONDS_MAX

    def __init__(self, data: Path, *, store: bool = False, **settings: object) -> None:
        """Prepare; `start` starts it.

        Args:
            data: data folder; its parent takes what the process says.
            store: with ClickHouse.
            settings: further settings by their lower-case names.
        """
        self.data = data
        self.urls: dict[str, str] = {}
        self.start_seconds = 0.0
        self._store = store
        self._settings = {"reports_port": 0, "streams_port": 0, "query_port": 0, **settings}
        self._out = data.parent / f"{data.name}.out"
        self._err = data.parent / f"{data.name}.err"
        self._process: subprocess.Popen[bytes] | None = None
        self.http = httpx2.Client(timeout=HTTP_SECONDS, trust_env=False)

    @property
    def said(self) -> str:
        """What the process wrote to standard error, over all its lives."""
        return self._err.read_text() if self._err.exists() else ""

    def command_line(self) -> list[str]:
        """Return the command line that starts it."""
        return [str(CORDON), "up", "--data", str(self.data), "--store" if self._store else "--no-store"]

    def start(self) -> "CordonProcess":
        """Start it and return once it has said `ready`."""
        begun = time.monotonic()
        command = self.command_line()
        with self._out.open("wb") as out, self._err.open("ab") as err:
            self._process = subprocess.Popen(command, env=environment(**self._settings), stdout=out, stderr=err)
        while "ready" not in (lines := self._out.read_text().splitlines()):
            if self._process.poll() is not None or time.monotonic() - begun > self.start_seconds_max:
                self.kill()
                raise CordonEndedError(f"cordon up said {lines} and then: {self.said[-2000:]}")
            time.sleep(0.01)
        self.start_seconds = time.monotonic() - begun
        words = [line.split() for line in lines]
        self.urls = {pair[0]: pair[1] for pair in words if len(pair) == 2 and pair[1].startswith("http")}
        return self

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """Ask it with SIGTERM to end."""
        assert self._process is not None
        self._process.terminate()

    def wait(self, seconds: float) -> int:
        """Return its exit code once it has ended.

        Raises:
            TimeoutExpired: it has not ended in time.
        """
        assert self._process is not None
        return self._process.wait(seconds)

    def close(self) -> None:
        """Leave nothing behind: no process, no connection."""
        self.kill()
        self.http.close()

    def token(self, name: str) -> str:
        """Return one of the first tokens: `agents`, `rollouts`, `operator` or `approver`."""
        return (self.data / f"{name}.token").read_text().strip()

    def bearer(self, name: str) -> dict[str, str]:
        """Return the header that carries one of the first tokens."""
        return {"authorization": f"Bearer {self.token(name)}"}

    def post(self, reports: Sequence[dict[str, Any]], **headers: str) -> httpx2.Response:
        """Post reports as one array and return the answer."""
        return self.post_raw(msgspec.json.encode(reports), **headers)

    def post_raw(self, body: bytes, **headers: str) -> httpx2.Response:
        """Post a body to `/v1/reports`; header names with `_` for `-`."""
        sent = {"content-type": JSON, **self.bearer("agents")}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(f"{self.urls['reports']}/v1/reports", content=body, headers=sent)

    def accept(self, reports: Sequence[dict[str, Any]]) -> None:
        """Post reports that have to be taken, all of them."""
        answer = self.post(reports)
        assert answer.status_code == 202, answer.text
        assert answer.json()["accepted"] == len(reports), answer.text

    def declare(self, declaration: dict[str, Any]) -> str:
        """Declare a rollout and return its id."""
        url = f"{self.urls['reports']}/v1/rollouts"
        answer = self.http.post(url, json=declaration, headers=self.bearer("rollouts"))
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["rollout"])

    def rollouts(self) -> list[dict[str, Any]]:
        """Return all known rollouts."""
        answer = self.http.get(f"{self.urls['reports']}/v1/rollouts", headers=self.bearer("rollouts"))
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["rollouts"]
        return found

    def rollout_of(self, product: str, version: str) -> str:
        """Return the id of the one rollout of a product's version."""
        (found,) = (one for one in self.rollouts() if (one["product"], one["version"]) == (product, version))
        return str(found["rollout"])

    def verdict(self, rollout: str) -> dict[str, Any]:
        """Return what `/v1/rollouts/{id}/verdict` says."""
        url = f"{self.urls['streams']}/v1/rollouts/{rollout}/verdict"
        answer = self.http.get(url, headers=self.bearer("rollouts"))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def command(self, rollout: str, action: str, reason: str) -> httpx2.Response:
        """Hold, kill or release a rollout as the operator, and return the answer."""
        url = f"{self.urls['streams']}/v1/rollouts/{rollout}/{action}?wait=1"
        return self.http.post(url, json={"reason": reason}, headers=self.bearer("operator"))

    def release(self, rollout: str, reason: str) -> httpx2.Response:
        """Release a killed rollout as two persons do: the operator asks, the approver agrees; return that answer."""
        asked = self.command(rollout, "release", reason)
        assert (asked.status_code, asked.json()["result"]) == (202, "pending"), asked.text
        url = f"{self.urls['streams']}/v1/rollouts/{rollout}/approve?wait=1"
        body = {"reason": reason, "command_id": asked.json()["command_id"]}
        return self.http.post(url, json=body, headers=self.bearer("approver"))

    def metrics(self) -> dict[str, float]:
        """Return the metrics by name and labels, for instance `cordon_reports_total{outcome="accepted"}`."""
        answer = self.http.get(f"{self.urls['reports']}/metrics")
        lines = [line for line in answer.text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def metric(self, name: str, **labels: str) -> float:
        """Return one metric's value; 0 where it was never counted."""
        inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
        return self.metrics().get(f"cordon_{name}{{{inside}}}" if labels else f"cordon_{name}", 0.0)

    def query(self, sql: str) -> list[list[str]]:
        """Ask the store's read-only endpoint, and return the rows as texts."""
        answer = self.http.post(self.urls["query"], content=sql.encode())
        assert answer.status_code == 200, answer.text
        return [line.split("\t") for line in answer.text.splitlines()]


@contextmanager
def running(data: Path, *, store: bool = False, **settings: object) -> Iterator[CordonProcess]:
    """Run `cordon up` while the block lasts."""
    process = CordonProcess(data, store=store, **settings)
    try:
        yield process.start()
    finally:
        process.close()


def eventually(seconds: float, what: str) -> Iterator[None]:
    """Yield until the caller leaves the loop; fail once the time is out.

    Raises:
        AssertionError: the caller has not left in time.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {seconds:.0f} s")
