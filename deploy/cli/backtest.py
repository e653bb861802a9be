"""`cordon backtest`: Cordon's detectors and what others use, over scenarios with a known truth.

The exit code is 0 where everything is as the scenarios' truth expects of Cordon, 1 where something is not, 2 where
something could not be run.
"""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.console import Console

from deploy.backtest.cohort_run import Failed, Task, Work, run_all, run_cohort
from deploy.backtest.exact import refusal, run_exact
from deploy.backtest.tables import HEAD_NOTE, WIDTH, notes_of, rival_lines, scenario_table, summary_table
from deploy.cli.backtest_recorded import Question, run_recorded
from detectors.backtest.library import ScenarioError, load, names
from detectors.backtest.scenario import Scenario
from detectors.backtest.score import CORDON
from detectors.backtest.summary import Rival, Run, Total, rivals, totals
from detectors.policy import Policies, PolicyError
from detectors.policy import load as load_policies
from ingest.topics import LIVE_LANE

_FILE = click.Path(path_type=Path, dir_okay=False)
SEEDS_MAX: Final = 1000
NOT_RUN_CODE: Final = 2


class Backtest(msgspec.Struct, kw_only=True):
    """What `--json` writes.

    Attributes:
        policy: digest of the default policy that decided.
        as_expected: everything is as the truth expects of Cordon.
        rivals: peers that lose fewer devices than Cordon somewhere.
        failed: what could not be run.
    """

    schema: int = 1
    policy: str
    as_expected: bool
    runs: list[Run]
    totals: list[Total]
    rivals: list[Rival]
    failed: list[Failed]


@click.command()
@click.argument("scenarios", nargs=-1, metavar="[SCENARIO]...")
@click.option("--all", "whole", is_flag=True, help="The whole library.")
@click.option("--policy", "policy_file", type=_FILE, help="Policy that decides; the built-in one if not given.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="First seed; each scenario's own if not given.")
@click.option("--seeds", type=click.IntRange(1, SEEDS_MAX), default=1, show_default=True, help="How many, one by one.")
@click.option("--devices", type=click.IntRange(1, 8_500_000), help="Size of the fleet; each scenario's if not given.")
@click.option("--peers/--no-peers", default=True, show_default=True, help="Let the peers judge too.")
@click.option("--exact", is_flag=True, help="Through the whole pipeline too, and compare with the cohort level.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes side by side.")
@click.option("--store", metavar="URL", help="Recorded traffic: the query endpoint of `cordon up`. No truth, no seeds.")
@click.option("--since", metavar="TIME", help="With --store: from when, 12h, 30d, or a UTC time.  [default: 30d]")
@click.option("--until", metavar="TIME", help="With --store: until when.  [default: the latest report's time]")
@click.option("--product", metavar="VENDOR/PRODUCT", help="With --store: only this product's rollouts.")
@click.option("--lane", metavar="NAME", help="With --store: lane to read.  [default: live]")
@click.option("--json", "json_file", type=_FILE, help="Write everything here too.")
def backtest(
    scenarios: tuple[str, ...],
    whole: bool,
    policy_file: Path | None,
    seed: int | None,
    seeds: int,
    devices: int | None,
    peers: bool,
    exact: bool,
    jobs: int,
    store: str | None,
    since: str | None,
    until: str | None,
    product: str | None,
    lane: str | None,
    json_file: Path | None,
) -> None:
    """Run Cordon's detectors and its peers over SCENARIOs: names from the library, or TOML files.

    With --store, over the rollouts that a store has recorded: what would the policy have done?
    """
    policies = _policies(policy_file)
    if store is not None:
        if scenarios or whole or exact or seed is not None or devices is not None or seeds > 1:
            raise click.UsageError("--store takes what was recorded: no scenarios, --all, --exact, --seed or --devices")
        run_recorded(Question(store, lane or LIVE_LANE, since, until, product), policies, peers, json_file)
        return
    if any(value is not None for value in (since, until, product, lane)):
        raise click.UsageError("--since, --until, --product and --lane go with --store")
    found = _scenarios(scenarios, whole)
    work: Work = run_cohort
    if exact:
        found, peers = _through_pipeline(found, whole), False
        work = partial(run_exact, policy_file="" if policy_file is None else str(policy_file.resolve()))
    tasks = [
        Task(scenario=one, seed=each, devices=devices, policies=policies, peers=peers)
        for one in found
        for each in _seeds(one, seed, seeds)
    ]
    runs, failed = _show(run_all(tasks, jobs, work, _progress(len(tasks))), seeds)
    result = Backtest(
        policy=policies.default.digest,
        as_expected=not failed and not any(_broken(run) for run in runs),
        runs=runs,
        totals=totals(runs),
        rivals=[] if exact else rivals(runs),
        failed=failed,
    )
    _summary(result, len(found), whole, peers)
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    raise SystemExit(NOT_RUN_CODE if failed else 0 if result.as_expected else 1)


def _progress(count: int) -> Callable[[Task], None]:
    """Return what tells somebody at a terminal how far it is: tables come in order, and the first may take longest."""
    through = itertools.count(1)

    def done(task: Task) -> None:
        if sys.stderr.isatty():
            click.echo(f"[{next(through)}/{count}] {task.scenario.name}, seed {task.seed}", err=True)

    return done


def _policies(file: Path | None) -> Policies:
    try:
        return load_policies(file)
    except PolicyError as error:
        raise click.BadParameter(str(error), param_hint="--policy") from error


def _scenarios(asked: Sequence[str], whole: bool) -> list[Scenario]:
    if whole == bool(asked):
        raise click.UsageError(f"name scenarios, or --all for the whole library: {', '.join(names())}")
    try:
        return [load(name) for name in (names() if whole else dict.fromkeys(asked))]
    except ScenarioError as error:
        raise click.UsageError(str(error)) from error


def _through_pipeline(found: Sequence[Scenario], whole: bool) -> list[Scenario]:
    """Return the scenarios that can go through the pipeline; one that was named and can't is an error."""
    reasons = {one.name: refusal(one) for one in found}
    refused = {name: reason for name, reason in reasons.items() if reason}
    if refused and not whole:
        raise click.UsageError("; ".join(f"{name}: {reason}" for name, reason in refused.items()))
    if refused:
        click.echo(f"--exact leaves out, since only the cohort level knows them: {', '.join(refused)}", err=True)
    return [one for one in found if not reasons[one.name]]


def _broken(run: Run) -> list[str]:
    """Return what is not as it ought to be in a run: Cordon's part, and that both levels agree."""
    texts = [text for judge in run.judged if judge.startswith(CORDON) for text in run.judged[judge].broken]
    return texts if run.agree else [*texts, run.agreement]


def _seeds(scenario: Scenario, first: int | None, count: int) -> Iterator[int]:
    begin = scenario.seed if first is None else first
    return ((begin + number) % 2**32 for number in range(count))


def _show(outcomes: Iterable[Run | Failed], seeds: int) -> tuple[list[Run], list[Failed]]:
    """Print each scenario's table as soon as its last seed is done."""
    console = Console(width=WIDTH)
    console.print(HEAD_NOTE, "\n", highlight=False)
    runs: list[Run] = []
    failed: list[Failed] = []
    for number, outcome in enumerate(outcomes, start=1):
        if isinstance(outcome, Failed):
            failed.append(outcome)
            click.echo(f"{outcome.scenario}, seed {outcome.seed}: {outcome.message}", err=True)
        else:
            runs.append(outcome)
        if number % seeds == 0:
            together = [run for run in runs if run.scenario == outcome.scenario]
            if together:
                show_scenario(console, together)
    return runs, failed


def show_scenario(console: Console, runs: Sequence[Run]) -> None:
    """Print one scenario's table with its notes."""
    console.print(scenario_table(runs))
    for note in notes_of(runs):
        console.print(f"  {note}", highlight=False, markup=False)
    console.print()


def _summary(result: Backtest, scenarios: int, whole: bool, peers: bool) -> None:
    console = Console(width=WIDTH)
    if result.runs:
        console.print(summary_table(result.totals, scenarios))
    for line in rival_lines(result.rivals, whole) if peers and result.runs else ():
        console.print(f"- {line}", highlight=False, markup=False)
    for run in result.runs if len(result.runs) > 1 else ():
        for text in _broken(run):
            console.print(f"NOT AS EXPECTED: {run.scenario}, seed {run.seed}: {text}", highlight=False, markup=False)
    for one in result.failed:
        console.print(f"NOT RUN: {one.scenario}, seed {one.seed}: {one.message}", highlight=False, markup=False)
