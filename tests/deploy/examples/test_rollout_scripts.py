"""The example scripts against a running Cordon: they push while it says proceed, and not a part more."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from deploy.embedded import RunningEmbedded, running
from ingest.settings import Settings
from support.streams import eventually, free_port

EXAMPLES = Path(__file__).parents[3] / "deploy" / "examples"
SCRIPTS = [
    "python",
    pytest.param("shell", marks=pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")),
]
SECONDS_MAX = 60.0


@pytest.fixture(scope="module")
def cordon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEmbedded]:
    data = tmp_path_factory.mktemp("cordon")
    with running(Settings(data_dir=str(data), reports_port=0, streams_port=0, query_port=0, store=False)) as made:
        yield made


class Script:
    """One of the two scripts, with commands that note what they were asked to do."""

    def __init__(self, kind: str, url: str, token: str, keys: Path, rollout: str, folder: Path) -> None:
        self._notes = folder / "notes"
        self._notes.touch()
        note = folder / "note.sh"
        note.write_text(f'#!/bin/sh\necho "$@" >> {self._notes}\n')
        note.chmod(0o755)
        (folder / "token").write_text(token)
        self.kind, self._url, self._token, self._keys = kind, url, token, keys
        self._rollout, self._folder, self._note = rollout, folder, note

    def run(self, *rings: str, patience: int = 60) -> int:
        """Return the exit code."""
        if self.kind == "shell":
            environment = {
                "URL": self._url, "CORDON_TOKEN": self._token, "ROLLOUT": self._rollout, "PARTS": "2",
                "PATIENCE": str(patience), "PUSH": f"{self._note} push", "ROLLBACK": f"{self._note} rollback",
            }  # fmt: skip
            command = [str(EXAMPLES / "shell" / "rollout.sh"), *rings]
            return subprocess.run(command, env=os.environ | environment, timeout=SECONDS_MAX, check=False).returncode
        command = [
            *(sys.executable, str(EXAMPLES / "python" / "rollout.py"), *rings, "--rollout", self._rollout),
            *("--url", self._url, "--keys", str(self._keys), "--token-file", str(self._folder / "token")),
            *("--state", str(self._folder / "state"), "--parts", "2", "--patience", str(patience)),
            *("--push", str(self._note), "push", "--rollback", str(self._note), "rollback"),
        ]
        # Where the package is not installed the script finds it as a checkout does.
        path = os.environ | {"PYTHONPATH": str(EXAMPLES.parents[1])}
        return subprocess.run(command, env=path, timeout=SECONDS_MAX, check=False).returncode

    def notes(self) -> list[str]:
        return self._notes.read_text().splitlines()


def declare(cordon: RunningEmbedded, token: str, version: str) -> str:
    start_ms = time.time_ns() // 1_000_000 + 60_000
    rings = [{"name": name, "starts_at_ms": start_ms} for name in ("canary", "early")]
    body = {"vendor": "acme", "product": "edr", "update_kind": "driver", "version": version, "rings": rings}
    answer = httpx2.post(
        f"{cordon.reports_url}/v1/rollouts", json=body, headers={"authorization": f"Bearer {token}"}, timeout=20
    )
    rollout = str(answer.json()["rollout"])
    eventually(lambda: httpx2.get(verdict_url(cordon, rollout), headers=bearer(token)).status_code == 200, 20)
    return rollout


def verdict_url(cordon: RunningEmbedded, rollout: str) -> str:
    return f"{cordon.streams_url}/v1/rollouts/{rollout}/verdict"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def ask(cordon: RunningEmbedded, rollout: str, action: str, **body: object) -> None:
    answer = httpx2.post(
        f"{cordon.streams_url}/v1/rollouts/{rollout}/{action}?wait=1",
        json={"reason": "a test", **body},
        headers=bearer(cordon.token("operator")),
        timeout=20,
    )
    assert answer.status_code == 200, answer.text


@pytest.fixture(params=SCRIPTS)
def script(request: pytest.FixtureRequest, cordon: RunningEmbedded, tmp_path: Path) -> tuple[Script, str]:
    token = cordon.token("rollout")
    rollout = declare(cordon, token, f"1.{time.time_ns()}")
    return Script(request.param, cordon.streams_url, token, cordon.public_key_path(), rollout, tmp_path), rollout


def test_every_part_of_every_ring_is_pushed_in_order(script: tuple[Script, str]) -> None:
    assert script[0].run("canary", "early") == 0
    assert script[0].notes() == ["push canary 1", "push canary 2", "push early 1", "push early 2"]


def test_a_kill_rolls_back_and_pushes_nothing(cordon: RunningEmbedded, script: tuple[Script, str]) -> None:
    ask(cordon, script[1], "kill")
    assert script[0].run("canary", "early") == 3
    assert script[0].notes() == ["rollback canary"]


def test_a_hold_of_one_ring_lets_the_ring_before_it_through(
    cordon: RunningEmbedded, script: tuple[Script, str]
) -> None:
    ask(cordon, script[1], "hold", scope="ring=early")
    assert script[0].run("canary", "early", patience=2) == 4
    assert script[0].notes() == ["push canary 1", "push canary 2"]


def test_a_ring_that_there_is_not_ends_it_at_once(script: tuple[Script, str], cordon: RunningEmbedded) -> None:
    """A typo is an error: neither a push past a stop of the ring that was meant nor an hour of waiting."""
    ask(cordon, script[1], "hold", scope="ring=canary")
    assert script[0].run("canry") == {"python": 1, "shell": 2}[script[0].kind]
    assert script[0].notes() == []


@pytest.mark.parametrize("kind", SCRIPTS)
def test_an_unknown_rollout_ends_it_at_once(cordon: RunningEmbedded, tmp_path: Path, kind: str) -> None:
    token = cordon.token("rollout")
    script = Script(kind, cordon.streams_url, token, cordon.public_key_path(), "r-1", tmp_path)
    assert script.run("canary") == {"python": 1, "shell": 2}[kind]


@pytest.mark.parametrize("kind", SCRIPTS)
def test_without_a_cordon_nothing_is_pushed(cordon: RunningEmbedded, tmp_path: Path, kind: str) -> None:
    script = Script(kind, f"http://127.0.0.1:{free_port()}", "t", cordon.public_key_path(), "r-1", tmp_path)
    # The Python script can't begin without the stream; the shell has none, and is out of patience.
    assert script.run("canary", patience=1) == {"python": 1, "shell": 4}[kind]
    assert script.notes() == []
