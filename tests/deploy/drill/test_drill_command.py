"""`cordon drill` against a running Cordon: 0 when it was killed, 1 with the reason when not, 2 when it did not run."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from deploy.cli.drill import drill
from deploy.cli.up import up
from signals.killswitch.signing import PublicKeys
from support.streams import free_port
from support.switches import STRANGER
from support.system import CORDON, CordonProcess, cordon, environment, eventually, running


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CordonProcess]:
    with running(tmp_path_factory.mktemp("drill") / "data") as started:
        yield started


def where(process: CordonProcess) -> list[str]:
    return ["--gateway", process.urls["reports"], "--streams", process.urls["streams"]]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(drill, [str(argument) for argument in arguments], env={"CORDON_TOKEN": ""})


def run_json(process: CordonProcess, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    done = run(*where(process), "--data", process.data, "--json", *arguments)
    said: dict[str, Any] = json.loads(done.stdout)
    return done.exit_code, said


def test_the_bad_rollout_is_killed_and_marked(process: CordonProcess) -> None:
    """As a person runs it. The first drill makes its token; `cordon watch` says DRILL on each of its events."""
    done = cordon("drill", *where(process), "--data", process.data)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("DRILL PASSED: killed ")
    assert "crashes posted" in done.stdout
    watched = cordon(
        "watch", "--drills", "only", "--url", process.urls["streams"], "--token-file", process.data / "rollouts.token",
        "--from-start", "--count", "2",
    )  # fmt: skip
    lines = watched.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.endswith("[DRILL]") for line in lines)


def test_what_keeps_it_from_running_is_said_and_exits_with_2(process: CordonProcess, tmp_path: Path) -> None:
    nowhere = run("--gateway", "http://127.0.0.1:9", "--streams", process.urls["streams"], "--data", process.data)
    assert (nowhere.exit_code, "no Cordon answers" in nowhere.stderr) == (2, True)
    unknown = tmp_path / "token"
    unknown.write_text("cordon_unknown\n")
    refused = run(*where(process), "--token-file", unknown)
    assert (refused.exit_code, "roles report and rollout" in refused.stderr) == (2, True)
    no_token = run(*where(process))
    assert (no_token.exit_code, "give the drill a token" in no_token.stderr) == (2, True)
    no_data = run(*where(process), "--data", tmp_path)
    assert (no_data.exit_code, "no tokens.toml" in no_data.stderr) == (2, True)
    no_role = run(*where(process), "--token-file", process.data / "rollouts.token")
    assert (no_role.exit_code, "lacks the role `report`" in no_role.stderr) == (2, True)
    as_json = run(*where(process), "--data", tmp_path, "--json")
    assert json.loads(as_json.stdout)["result"] == "not_run"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--every", "daily"], "for instance 24h"),
        (["--every", "9m"], "10 minutes apart"),
        (["--metrics-port", "9400"], "needs --every"),
        (["--limit", "0"], "limit"),
    ],
)
def test_a_wrong_call_is_told(arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, says in done.stderr) == (2, True)


def test_every_runs_one_at_once_and_goes_on_until_it_is_asked_to_end_and_serves_metrics(
    process: CordonProcess, tmp_path: Path
) -> None:
    port, file = free_port(), tmp_path / "out"
    options = ["--data", str(process.data), "--every", "24h", "--metrics-port", str(port), "--json"]
    with file.open("wb") as out:
        going_on = subprocess.Popen([CORDON, "drill", *where(process), *options], env=environment(), stdout=out)
    try:
        for _ in eventually(30, "the first result"):
            if file.read_text().endswith("\n") or going_on.poll() is not None:
                break
        said = json.loads(file.read_text())
        assert (said["result"], said["failure"]) == ("passed", None), said
        assert 0 < said["seconds_to_kill"] < said["limit_seconds"]
        assert said["counted"]["exposed"] == 48
        assert said["counted"]["crashes_exposed"] <= said["crashes_posted"] + 1
        verdict = process.verdict(said["rollout"])
        assert (verdict["vendor"], verdict["product"], verdict["killed"]) == ("cordon", "drill", True)
        assert verdict["decided_by"] == "detector"
        assert {(one["vendor"], one["product"]) for one in process.rollouts()} == {("cordon", "drill")}
        metrics = httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        assert 'cordon_drills_total{result="passed"} 1.0' in metrics
        going_on.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert going_on.wait(10) == 0
        assert time.monotonic() - begun < 5
    finally:
        going_on.kill()
        going_on.wait()


def test_a_kill_that_subscribers_would_not_believe_is_no_kill(process: CordonProcess, tmp_path: Path) -> None:
    """The last in this file: who starts a drill beside another is refused, and this one ends before it is killed."""
    strangers = tmp_path / "keys.json"
    strangers.write_bytes(PublicKeys([STRANGER.public]).to_json())
    code, said = run_json(process, "--keys", strangers)
    assert (code, said["failure"]) == (1, "not_believed"), said


def test_a_setting_that_would_be_ignored_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(up, ["--distributed", "--data", str(tmp_path / "data")], env={"CORDON_DRILL_HOUR": "4"})
    assert done.exit_code == 78
    assert "cordon drill --every 24h" in done.stderr
