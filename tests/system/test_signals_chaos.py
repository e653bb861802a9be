"""Nothing lost, nothing doubled, with real processes: `cordon up` and its subscribers are ended with SIGKILL.

Each series is a seed: people hold and release rollouts while processes are killed and started again. `CHAOS_SERIES`
sets how many; `make chaos-signals` runs 20.
"""

import base64
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support import chaos_subscriber
from support.system import CordonProcess, environment
from support.system_reports import declaration

SERIES = int(os.environ.get("CHAOS_SERIES", "1"))
COMMANDS = 12
ROLLOUTS = 3
SETTLE_SECONDS_MAX = 150.0
KINDS = ("stream", "poll", "webhook", "webhook")
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SubscriberProcess:
    """One subscriber, started and killed as often as a series likes."""

    def __init__(self, kind: str, folder: Path, given: dict[str, Any]) -> None:
        folder.mkdir()
        self.kind, self.folder, self.given = kind, folder, given
        self.kills = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, chaos_subscriber.__file__, self.kind, str(self.folder), json.dumps(self.given)]
        with (self.folder / "err").open("ab") as err:
            self._process = subprocess.Popen(command, env=environment(PYTHONPATH="") | self._path(), stderr=err)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.kills += 1

    def done(self) -> list[str]:
        path = self.folder / "done"
        return path.read_text().split() if path.exists() else []

    def said(self) -> str:
        return (self.folder / "err").read_text()[-2000:]

    @staticmethod
    def _path() -> dict[str, str]:
        return {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


class Series:
    """One Cordon, its subscribers, and what was asked of it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        *self._killed_at, self._restarted_at = self.chance.sample(range(COMMANDS), 2)
        self.port = free_port()
        self.cordon = CordonProcess(
            folder / "cordon", streams_port=self.port, webhook_private_targets="127.0.0.0/8", webhook_timeout_seconds=3
        ).start()
        self.kills = 0
        self.applied = 0
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "keys.json").write_bytes(httpx2.get(f"{self.url}/v1/keys", trust_env=False).content)
        self.rollouts = [self._declare(number) for number in range(ROLLOUTS)]
        self.held = dict.fromkeys(self.rollouts, False)
        common = {"url": self.url, "keys": str(folder / "keys.json"), "token": self.cordon.token("rollouts")}
        self.subscribers = [
            SubscriberProcess(kind, folder / f"{kind}-{number}", common | {"port": free_port()})
            for number, kind in enumerate(KINDS)
        ]
        for subscriber in self.subscribers:
            subscriber.start()
            if subscriber.kind == "webhook":
                self._subscribe(subscriber)

    def _ask(self, method: str, path: str, body: Any = None, token: str = "operator") -> httpx2.Response:
        base = self.cordon.urls["reports"] if path == "/v1/rollouts" else self.url
        headers = {"authorization": f"Bearer {self.cordon.token(token)}"}
        return self.cordon.http.request(method, f"{base}{path}", json=body, headers=headers)

    def _declare(self, number: int) -> str:
        answer = self._ask("POST", "/v1/rollouts", declaration(f"sensor-{number}", "2"), "rollouts")
        return str(answer.raise_for_status().json()["rollout"])

    def _subscribe(self, subscriber: SubscriberProcess) -> None:
        url = f"http://127.0.0.1:{subscriber.given['port']}/"
        made = self._ask("POST", "/v1/webhooks", {"url": url}).raise_for_status().json()
        (subscriber.folder / "secret").write_text(made["secret"])

    def command(self, number: int) -> None:
        """Have a person hold a rollout, or release it; asked again, by the same id, until the answer is known."""
        rollout = self.chance.choice(self.rollouts)
        action = "release" if self.held[rollout] else "hold"
        self.held[rollout] = not self.held[rollout]
        body = {"reason": f"series command {number}", "command_id": f"c-{number}"}
        kill_in_the_middle = number in self._killed_at
        for _ in range(20):
            try:
                if kill_in_the_middle:
                    kill_in_the_middle = False
                    self._ask("POST", f"/v1/rollouts/{rollout}/{action}", body)
                    self.restart()
                answer = self._ask("POST", f"/v1/rollouts/{rollout}/{action}?wait=1", body)
            except httpx2.HTTPError:
                time.sleep(0.2)
                continue
            if answer.status_code == 200:
                self.applied += 1
                return
            assert answer.status_code in (202, 503), answer.text
        raise AssertionError(f"{action} of {rollout} was not answered")

    def restart(self) -> None:
        """End Cordon with SIGKILL and start it again on the same folder."""
        self.kills += 1
        self.cordon.kill()
        self.cordon.start()

    def fault(self, number: int) -> None:
        """Let subscribers fail now and then, and Cordon between two commands once."""
        if number == self._restarted_at:
            self.restart()
        for subscriber in self.subscribers:
            if self.chance.random() < 0.12:
                subscriber.kill()
                subscriber.start()

    def events(self) -> list[str]:
        """Return the ids of all events there are, in order."""
        headers = {"authorization": f"Bearer {self.cordon.token('rollouts')}"}
        query = {"from": "start", "limit": "100"}
        answer = self.cordon.http.get(f"{self.url}/v1/killswitch/events", params=query, headers=headers)
        payloads = [base64.b64decode(event["payload"]) for event in answer.raise_for_status().json()["events"]]
        return [str(json.loads(payload)["id"]) for payload in payloads]

    def settle(self, expected: list[str]) -> None:
        """Wait until every subscriber has as many events as there are."""
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while any(len(one.done()) < len(expected) for one in self.subscribers):
            assert time.monotonic() < deadline, "\n".join(
                f"{one.kind} had {len(one.done())} of {len(expected)} events; it said {one.said()}"
                for one in self.subscribers
            )
            time.sleep(0.05)

    def close(self) -> None:
        """Leave no process behind."""
        self.cordon.close()
        for subscriber in self.subscribers:
            subscriber.kill()


@pytest.fixture
def series(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Series]:
    made = Series(tmp_path, request.param)
    try:
        yield made
    finally:
        made.close()


def by_rollout(ids: list[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for one in ids:
        rollout, _, number = one.rpartition("/")
        found.setdefault(rollout, []).append(int(number))
    return found


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("series", range(SERIES), indirect=True)
def test_killed_processes_cost_no_subscriber_an_event_and_give_none_twice(
    series: Series, record_property: Callable[[str, object], None]
) -> None:
    for number in range(COMMANDS):
        series.command(number)
        series.fault(number)
    events = series.events()
    assert len(events) == len(set(events)) == series.applied == COMMANDS
    series.settle(events)
    expected = by_rollout(events)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in expected.values())
    for subscriber in series.subscribers:
        assert by_rollout(subscriber.done()) == expected, subscriber.kind
    record_property("kills", series.kills + sum(one.kills for one in series.subscribers))
    assert series.kills == 2
    assert sum(one.kills for one in series.subscribers) > 0
