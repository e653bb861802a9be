"""`cordon backtest` from outside: tables, exit codes, JSON, and what it refuses."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from deploy.backtest.cohort_run import Failed, Task, failed, run_all
from deploy.cli.backtest import Backtest
from deploy.cli.main import main
from detectors.backtest.library import load, names
from detectors.backtest.peers.registry import names as peer_names
from detectors.backtest.summary import Run
from detectors.policy import load as load_policies

# A few hundred devices for three hours: a file that ends every machine that loads it, in rings, with hold-outs.
SMALL = """
extends = "office"
name = "small"
title = "A fleet for a test"
duration_seconds = 10800
warm_up_seconds = 1200

[fleet]
devices = 1500
devices_per_site = 20
rings = [{ name = "canary", share = 0.2 }, { name = "broad", share = 0.8 }]

[[updates]]
vendor = "contoso"
product = "sensor-content"
version = "2026-03-11"
declare = "rules"
rings = [
  { name = "canary", starts_after_seconds = 0, over_seconds = 1800, share = 0.6 },
  { name = "broad", starts_after_seconds = 7200, over_seconds = 1800 },
]
"""
# The same harm with nothing in it that the pipeline's simulation does not know, and shorter.
PLAIN = f"""
extends = "office"
name = "plain"
title = "A fleet for both levels"
duration_seconds = 4200
warm_up_seconds = 1200
step_seconds = 10

[fleet]
devices = 500
devices_per_site = 20
rings = [{{ name = "canary", share = 0.2 }}, {{ name = "broad", share = 0.8 }}]

[[fleet.form_factors]]
name = "desktop"
weight = 1
uptime_hours_mean = 90
on_by_hour = {[0.9] * 24}
os_builds = [{{ name = "19045.4651", weight = 1 }}]
models = [{{ name = "OptiPlex 7010", weight = 1 }}]

[[updates]]
vendor = "contoso"
product = "sensor-content"
version = "2026-03-11"
declare = "rules"
rings = [
  {{ name = "canary", starts_after_seconds = 0, over_seconds = 1200, share = 0.6 }},
  {{ name = "broad", starts_after_seconds = 2400, over_seconds = 1200 }},
]
"""
HARM = """
[updates.incident]
crash_probability = 1
boot_loop_share = 0.2
report_share = 0.5

[updates.incident.crash]
module = "contosovpn.sys"
bugcheck = 0x50
frames = [{ module = "contosovpn.sys", offset = 0x1c2f0 }]

[truth]
guilty = "contoso/sensor-content/2026-03-11"
decision = "kill"

[truth.expect]
killed_or_held_before_broad = true
must_not = ["proceed"]
named = true
"""
HEALTH = """
[truth]
decision = "{decision}"
"""


@pytest.fixture
def harmful(tmp_path: Path) -> str:
    file = tmp_path / "harmful.toml"
    file.write_text(SMALL + HARM)
    return str(file)


@pytest.fixture
def healthy(tmp_path: Path) -> str:
    file = tmp_path / "healthy.toml"
    file.write_text(SMALL.replace('"small"', '"well"') + HEALTH.format(decision="proceed"))
    return str(file)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["backtest", *arguments], catch_exceptions=False)


def without_times(file: Path) -> Backtest:
    found = msgspec.json.decode(file.read_bytes(), type=Backtest)
    for run in found.runs:
        run.simulated_seconds = run.judged_seconds = 0.0
    return found


class TestScenarioThatIsAsExpected:
    def test_exits_with_0_and_shows_everybody(self, harmful: str) -> None:
        result = invoke(harmful, "--jobs", "1")
        assert result.exit_code == 0, result.output
        assert max(map(len, result.output.splitlines())) <= 120
        for name in ("cordon", *peer_names()):
            # Once in the scenario's table, once in the summary.
            assert sum(line.startswith(f" {name} ") for line in result.output.splitlines()) == 2
        cordon = next(line for line in result.output.splitlines() if line.startswith(" cordon "))
        assert "regressed" in cordon
        assert "yes" in cordon

    def test_same_seed_same_runs_in_one_process_and_in_two(self, harmful: str, healthy: str, tmp_path: Path) -> None:
        one, two = tmp_path / "one.json", tmp_path / "two.json"
        invoke(harmful, healthy, "--seed", "3", "--no-peers", "--jobs", "1", "--json", str(one))
        invoke(harmful, healthy, "--seed", "3", "--no-peers", "--jobs", "2", "--json", str(two))
        assert without_times(one) == without_times(two)

    def test_json_says_what_the_table_says(self, harmful: str, tmp_path: Path) -> None:
        file = tmp_path / "out.json"
        invoke(harmful, "--seeds", "2", "--seed", "7", "--no-peers", "--jobs", "1", "--json", str(file))
        found = msgspec.json.decode(file.read_bytes(), type=Backtest)
        assert found.as_expected
        assert [(run.scenario, run.seed, run.devices) for run in found.runs] == [("small", 7, 1500), ("small", 8, 1500)]
        for run in found.runs:
            (score,) = run.scores
            assert score.decided.killed_ms is not None
            assert score.decided.crashes_killed is not None
            assert 0 < score.lost < score.lost_without
            assert score.before_broad
            assert run.judged["cordon"].broken == []
        (total,) = found.totals
        assert (total.judge, total.runs, total.harmful, total.before_broad, total.unexpected) == ("cordon", 2, 2, 2, 0)
        assert total.lost == sum(run.scores[0].lost for run in found.runs)

    def test_several_seeds_are_one_table(self, harmful: str) -> None:
        result = invoke(harmful, "--seeds", "2", "--no-peers", "--jobs", "1")
        assert result.output.count("2 seeds from") == 1
        assert " 2/2 " in result.output


def dies(task: Task) -> Run | Failed:
    os.kill(os.getpid(), signal.SIGKILL)
    return failed(task, "never")


def waits(task: Task) -> Run | Failed:
    """Work that says which process does it, and goes on for ever."""
    Path(task.scenario.title).joinpath(str(os.getpid())).touch()
    time.sleep(600)
    return failed(task, "never")


def tasks_of(harmful: str, folder: Path) -> list[Task]:
    scenario = msgspec.structs.replace(load(harmful), title=str(folder))
    return [Task(scenario=scenario, seed=seed, devices=None, policies=load_policies(), peers=False) for seed in (1, 2)]


class TestProcesses:
    def test_a_process_that_dies_is_said_of_what_it_had_to_do(self, harmful: str, tmp_path: Path) -> None:
        outcomes = list(run_all(tasks_of(harmful, tmp_path), 2, dies))
        assert [one.seed for one in outcomes] == [1, 2]
        assert all(isinstance(one, Failed) and "its process died" in one.message for one in outcomes)

    def test_processes_end_with_the_one_that_started_them(self, harmful: str, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        parent = context.Process(target=run_waiting, args=(harmful, str(tmp_path)))
        parent.start()
        try:
            wait_until(lambda: len(started(tmp_path)) == 2)
        finally:
            parent.kill()
        wait_until(lambda: not any(map(lives, started(tmp_path))))
        parent.join()


def run_waiting(harmful: str, folder: str) -> None:
    list(run_all(tasks_of(harmful, Path(folder)), 2, waits))


def started(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.name.isdecimal()]


def lives(pid: str) -> bool:
    try:
        # What nobody has waited for yet is dead too.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


class TestScenarioThatIsNotAsExpected:
    def test_exits_with_1_and_says_what_is_broken(self, tmp_path: Path) -> None:
        file = tmp_path / "demanding.toml"
        file.write_text(SMALL + HEALTH.format(decision="hold"))
        result = invoke(str(file), "--no-peers", "--jobs", "1")
        assert result.exit_code == 1
        assert "NOT AS EXPECTED, cordon: not the decision that the truth asks for: hold" in result.output

    def test_the_policy_decides(self, harmful: str, tmp_path: Path) -> None:
        policy = tmp_path / "policy.toml"
        policy.write_text("devices_least = 2000\n")
        out = tmp_path / "out.json"
        result = invoke(harmful, "--no-peers", "--jobs", "1", "--policy", str(policy), "--json", str(out))
        assert result.exit_code == 1
        found = msgspec.json.decode(out.read_bytes(), type=Backtest)
        assert found.runs[0].scores[0].decided.killed_ms is None
        assert found.runs[0].scores[0].decided.held_ms is not None
        assert found.runs[0].judged["cordon"].broken == ["contoso/sensor-content/2026-03-11 was not killed"]
        assert not found.as_expected


class TestThroughThePipeline:
    def test_both_levels_are_shown_and_compared(self, tmp_path: Path) -> None:
        file, out = tmp_path / "plain.toml", tmp_path / "out.json"
        file.write_text(PLAIN + HARM)
        result = invoke(str(file), "--exact", "--seed", "3", "--json", str(out))
        assert result.exit_code == 0, result.output
        assert " cordon (exact) " in result.output
        assert "cohort level / pipeline agree" in " ".join(result.output.split())
        (run,) = msgspec.json.decode(out.read_bytes(), type=Backtest).runs
        assert (run.level, run.devices, run.agree) == ("exact", 500, True)
        cohort, exact = run.scores
        assert cohort.rollout == exact.rollout
        assert cohort.decided.killed_ms is not None
        assert exact.decided.killed_ms is not None
        # The same devices take it at the same times: when it is noticed may differ, by less than the ring takes.
        assert abs(cohort.decided.killed_ms - exact.decided.killed_ms) < 600_000
        assert run.counted is not None
        assert abs(run.counted - cohort.lost_without) <= 0.05 * cohort.lost_without

    def test_what_only_the_cohort_level_knows_is_refused_by_name(self, harmful: str) -> None:
        result = invoke(harmful, "--exact")
        assert result.exit_code == 2
        assert "small: only the cohort level knows fleet.form_factors laptop: weekend_share" in " ".join(
            result.output.split()
        )


class TestRefusals:
    def test_unknown_scenario_lists_the_library(self) -> None:
        result = invoke("july-20")
        assert result.exit_code == 2
        assert all(name in result.output for name in names())

    def test_neither_scenarios_nor_all(self) -> None:
        assert invoke().exit_code == 2
        assert invoke("healthy", "--all").exit_code == 2

    def test_policy_with_a_typo(self, harmful: str, tmp_path: Path) -> None:
        policy = tmp_path / "policy.toml"
        policy.write_text("alpha_kil = 1e-6\n")
        result = invoke(harmful, "--policy", str(policy))
        assert result.exit_code == 2
        assert "alpha_kil" in result.output

    def test_scenario_that_cannot_be_simulated_is_named_and_the_others_run(self, harmful: str, tmp_path: Path) -> None:
        file = tmp_path / "odd.toml"
        file.write_text(SMALL.replace('"small"', '"odd"').replace("[fleet]", "[fleet]\ncheck_in_seconds = 90") + HARM)
        result = invoke(str(file), harmful, "--no-peers", "--jobs", "1")
        assert result.exit_code == 2
        assert "NOT RUN: odd" in result.output
        assert "\n cordon " in result.output
