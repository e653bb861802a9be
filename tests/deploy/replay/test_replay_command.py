"""`cordon replay`: what it says to a wrong call, and what it prints."""

import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from deploy.cli.replay import moment_line, replay, result_table
from deploy.replay.client import GatewayClient
from deploy.replay.driver import Replay
from deploy.replay.result import Moment
from support.replay_gateway import FakeGateway, FakeSubscription
from support.scenarios import small


def test_an_unknown_scenario_lists_the_library() -> None:
    result = CliRunner().invoke(replay, ["july-91"])
    assert result.exit_code == 2
    assert "no scenario 'july-91'" in result.output
    assert "july-19, july-19-rings" in " ".join(result.output.split())


def test_what_only_the_cohort_level_simulates_is_refused_and_says_what_to_use() -> None:
    result = CliRunner().invoke(replay, ["slow-harm-2"])
    assert result.exit_code == 2
    assert "cordon backtest slow-harm-2" in " ".join(result.output.split())


@pytest.mark.parametrize("given", [["--gateway", "http://x"], ["--streams", "http://x", "--gateway", "http://y"]])
def test_half_a_target_is_refused(given: list[str]) -> None:
    result = CliRunner().invoke(replay, ["july-19", *given])
    assert result.exit_code == 2
    assert "go together" in result.output


def test_a_cordon_that_is_not_there_fails_the_replay(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    nowhere = "http://127.0.0.1:9"
    arguments = ["july-19", "--gateway", nowhere, "--streams", nowhere, "--token-file", str(token)]
    result = CliRunner().invoke(replay, arguments)
    assert result.exit_code == 2
    assert "the replay failed: cannot get the public keys" in result.output


def test_the_timeline_and_the_table_tell_the_numbers_of_the_run() -> None:
    gateway, moments = FakeGateway(kill_at_crashes=5), list[Moment]()
    client = GatewayClient(gateway.client())
    result = Replay(small(), client, FakeSubscription(gateway), progress=moments.append).run()
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(result_table(result))
    text = console.export_text()
    for number in (f"{result.pushed:,}", f"{result.lost:,}", f"{result.seconds_first_crash_to_kill:.0f} s", "event 1"):
        assert number in text
    assert "yes (kill)" in text
    last = moment_line(moments[-1])
    assert f"lost {result.lost:>6}" in last
    assert "switch killed" in last
