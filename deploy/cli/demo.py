"""`cordon demo`: 2024-07-19 twice, as it happened and with rings, with Cordon in the loop and without it.

Each variant is replayed through an embedded Cordon of its own, over HTTP; the simulated rollout system subscribes to
the signed stream and obeys. The same seed without Cordon is simulated beside it, in a process of its own. Every number
printed was measured in this run. Each leaves an incident report. Ends with 0 when each rollout was killed and its
kill's signature verifies.
"""

import datetime as dt
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from dashboards.incident.source import IncidentError
from deploy.cli.demo_report import report_of
from deploy.cli.replay import moment_line
from deploy.replay.client import ReplayError
from deploy.replay.remote import connected
from deploy.replay.result import Moment, ReplayResult
from detectors.backtest.fleet import Fleet, TruthCounts
from detectors.backtest.library import load
from ingest.settings import Settings
from signals.client import KillSwitchClient, PublicKeys, SwitchError
from signals.killswitch.verify import VerifiedEvent

VARIANTS = (("july-19", "as it happened: everyone at once"), ("july-19-rings", "with rings: canary, early, broad"))
LANE = "demo"
SETTLE_SECONDS = 900.0
ROLES = ("report", "rollout", "drive", "operator")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One variant, with Cordon and without."""

    name: str
    title: str
    result: ReplayResult
    without: TruthCounts
    kill: VerifiedEvent | None
    event_file: Path
    key_file: Path
    report: Path | None


def without_cordon(scenario: str, devices: int | None) -> TruthCounts:
    """Return what the same fleet suffers when nobody says stop: the whole scenario, same seed."""
    fleet = Fleet(load(scenario), devices)
    while not fleet.done:
        fleet.step()
    return fleet.truth()


class Timeline:
    """Prints a line at the start, whenever the switch moves, and every few minutes of event time."""

    def __init__(self, every_minutes: int = 5) -> None:
        """Print at least every `every_minutes` minutes of event time."""
        self._every = every_minutes
        self._state: object = None
        self._seen = 0

    def __call__(self, moment: Moment) -> None:
        """Take a full minute of event time."""
        self._seen += 1
        moved = moment.state != self._state
        self._state = moment.state
        if moved or -1 <= moment.minute <= 5 or self._seen % self._every == 1:
            click.echo("  " + moment_line(moment))


def run_variant(name: str, title: str, devices: int | None, without: "Future[TruthCounts]", out: Path) -> Outcome:
    """Replay one variant through an embedded Cordon, verify its kill, and write the incident's report.

    Raises:
        ReplayError: the gateway or the stream failed.
        IncidentError: the report can't be written.
    """
    from deploy.embedded import running

    scenario = load(name)
    click.secho(f"\n{scenario.title}", bold=True)
    with tempfile.TemporaryDirectory(prefix="cordon-demo-") as folder:
        settings = Settings(data_dir=folder, lane=LANE, reports_port=0, streams_port=0, query_port=0)
        with running(settings) as cordon:
            token = cordon.token(*ROLES)
            keys = PublicKeys.parse(cordon.public_key_path().read_bytes())
            with connected(
                scenario,
                reports_url=cordon.reports_url,
                streams_url=cordon.streams_url,
                token=token,
                lane=LANE,
                keys=keys,
                devices=devices,
                progress=Timeline(),
                settle_seconds=SETTLE_SECONDS,
            ) as replay:
                result = replay.run()
            kill = _kill_event(cordon.streams_url, token, keys, result)
            kept = _keep(out, name, kill, cordon.public_key_path())
            report = report_of(cordon, result.rollout, token, keys, out / f"{name}.html") if result.rollout else None
            return Outcome(name, title, result, without.result(), kill, *kept, report)


def _kill_event(streams_url: str, token: str, keys: PublicKeys, result: ReplayResult) -> VerifiedEvent | None:
    """Read the kill from the start of the stream, as a subscriber that comes late would, and verify it."""
    if result.killed_ms is None:
        return None
    with KillSwitchClient(streams_url, keys, token=token, lane=LANE, from_start=True, connects_max=3) as client:
        for event in client.verified():
            if event.event.data.decision == "kill" and event.event.data.rollout == result.rollout:
                return event
    return None


def _keep(out: Path, name: str, kill: VerifiedEvent | None, key: Path) -> tuple[Path, Path]:
    out.mkdir(parents=True, exist_ok=True)
    event_file, key_file = out / f"{name}.event.json", out / f"{name}.keys.json"
    key_file.write_bytes(key.read_bytes())
    if kill is not None:
        event_file.write_bytes(msgspec.json.format(msgspec.json.encode(kill.envelope), indent=2) + b"\n")
    return event_file, key_file


def _clock(at_ms: int | None) -> str:
    return "-" if at_ms is None else dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime("%H:%M:%S UTC")


def outcome_table(outcomes: list[Outcome]) -> Table:
    """Return the demo's result: one column a variant."""
    table = Table(title=f"2024-07-19 on {outcomes[0].result.devices:,} devices")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.title, justify="right")
    rows: dict[str, list[str]] = {}

    def row(name: str, text: str) -> None:
        rows.setdefault(name, []).append(text)

    for outcome in outcomes:
        result, without, evidence = outcome.result, outcome.without, outcome.result.evidence
        seconds = result.seconds_first_crash_to_kill
        row("devices that took the update, without Cordon", f"{without.pushed:,}")
        row("devices that took the update, with Cordon", f"{result.pushed:,}")
        row("devices lost without Cordon", f"{without.lost:,}")
        row("devices lost with Cordon", f"{result.lost:,}")
        row("share of the loss prevented", f"{1 - result.lost / max(1, without.lost):.1%}")
        row("first crash", _clock(result.first_crash_ms))
        row("kill", _clock(result.killed_ms))
        row("first crash to kill", "-" if seconds is None else f"{seconds:,.0f} s")
        row("evidence at the kill", "-" if evidence is None else f"10^{evidence.log10_evidence:.1f}")
        row("evidence needed", "-" if evidence is None else f"10^{evidence.log10_needed_to_kill:.1f}")
        row("crashes seen, exposed / control", _crashes(result))
        row("reports sent over HTTP", f"{result.reports:,}")
        row("event time / wall time", f"{result.event_seconds / 60:.0f} min / {result.wall_seconds:.0f} s")
        row("kill event's signature", "verified" if outcome.kill is not None else "NO KILL")
    for name, texts in rows.items():
        table.add_row(name, *texts)
    return table


def _crashes(result: ReplayResult) -> str:
    evidence = result.evidence
    return "-" if evidence is None else f"{evidence.crashes_exposed} / {evidence.crashes_control}"


@click.command()
@click.option(
    "--devices", type=click.IntRange(200, 8_500_000), default=None, help="Fleet size; the scenario's if not given."
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("build/demo"), show_default=True,
    help="Folder for the kill events, the public keys and the incident reports.",
)  # fmt: skip
def demo(devices: int | None, out: Path) -> None:
    """Replay 2024-07-19 with and without Cordon, and verify the signed kill."""
    started = time.monotonic()
    outcomes = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        futures = {name: pool.submit(without_cordon, name, devices) for name, _ in VARIANTS}
        try:
            for name, title in VARIANTS:
                outcomes.append(run_variant(name, title, devices, futures[name], out))
        except (ReplayError, SwitchError, IncidentError) as error:
            raise click.ClickException(str(error)) from error
    Console(width=110).print(outcome_table(outcomes))
    for outcome in outcomes:
        click.echo(f"{outcome.name}: {outcome.result.sentence}")
        click.echo(f"  check it yourself: cordon verify {outcome.event_file} --key {outcome.key_file}")
        click.echo(f"  incident report: {outcome.report or 'none'}")
    click.echo(f"done in {time.monotonic() - started:.0f} s")
    good = all(o.kill is not None and o.result.as_expected and o.result.lost < o.without.lost for o in outcomes)
    sys.exit(0 if good else 1)
