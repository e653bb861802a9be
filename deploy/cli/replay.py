"""`cordon replay SCENARIO`: send a simulated fleet through Cordon and see what its kill switch makes of it.

Without `--gateway` it starts an embedded Cordon of its own in a temporary folder, in a lane that is not live. The exit
code is 0 when the decision is the one the scenario's truth asks for, 1 when it is not, 2 when the replay failed.
"""

import datetime as dt
import importlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
from rich.console import Console
from rich.table import Table

from deploy.replay.client import ReplayError
from deploy.replay.remote import connected, fetch_keys
from deploy.replay.result import Moment, ReplayResult
from detectors.backtest.checks import cohort_only
from detectors.backtest.library import ScenarioError, load, names
from ingest.settings import Settings
from signals.client import PublicKeys, SwitchError

LANE = "replay"
_FILE = click.Path(path_type=Path, dir_okay=False)
ROLES = ("report", "rollout", "drive", "operator")


class Target(NamedTuple):
    """The Cordon to replay through."""

    reports_url: str
    streams_url: str
    token: str
    lane: str
    keys: PublicKeys


@contextmanager
def _embedded() -> Iterator[Target]:
    """Start a Cordon of our own in a temporary folder."""
    # Imported when needed: the embedded Cordon brings ClickHouse along, which a replay against another does not want.
    running = importlib.import_module("deploy.embedded").running
    with tempfile.TemporaryDirectory(prefix="cordon-replay-") as folder:
        # One sender that waits for each answer gains nothing from lingering: it would only wait 100 ms a post.
        settings = Settings(data_dir=folder, lane=LANE, linger_ms=0, reports_port=0, streams_port=0, query_port=0)
        with running(settings) as cordon:
            keys = PublicKeys.parse(cordon.public_key_path().read_bytes())
            yield Target(cordon.reports_url, cordon.streams_url, cordon.token(*ROLES), LANE, keys)


@contextmanager
def _remote(gateway: str, streams: str, token_file: Path, lane: str, keys_file: Path | None) -> Iterator[Target]:
    try:
        token = token_file.read_text(encoding="ascii").strip()
        keys = fetch_keys(streams) if keys_file is None else PublicKeys.parse(keys_file.read_bytes())
    except (OSError, UnicodeDecodeError, SwitchError) as error:
        raise ReplayError(f"cannot read the token or the keys: {error}") from error
    yield Target(gateway, streams, token, lane, keys)


def moment_line(moment: Moment) -> str:
    """Return one line of the timeline."""
    clock = dt.datetime.fromtimestamp(moment.at_ms / 1000, dt.UTC).strftime("%H:%M")
    truth = moment.truth
    return (
        f"{clock}Z {moment.minute:+6.1f} min  pushed {truth.pushed:>6} lost {truth.lost:>6} silent {truth.silent:>6} "
        f"crash reports {moment.crash_reports:>5}  switch {moment.state or '-':<9}  {moment.reports} reports in "
        f"{moment.wall_seconds:.0f} s"
    )


def result_table(result: ReplayResult) -> Table:
    """Return a replay's outcome as a table."""
    table = Table(title=f"{result.scenario}, {result.devices:,} devices, seed {result.seed}", show_header=False)

    def clock(at_ms: int | None) -> str:
        return "-" if at_ms is None else dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime("%H:%M:%SZ")

    to_kill = result.seconds_first_crash_to_kill
    rows = (
        ("kill switch", "obeyed" if result.kill_switch else "ignored"),
        ("devices pushed", f"{result.pushed:,}"),
        ("devices lost (took it and crashed)", f"{result.lost:,}"),
        ("of them recovered / silent at the end", f"{result.recovered:,} / {result.lost_silent_at_end:,}"),
        ("first crash", clock(result.first_crash_ms)),
        ("held / killed", f"{clock(result.held_ms)} / {clock(result.killed_ms)}"),
        ("first crash to kill", "-" if to_kill is None else f"{to_kill:.0f} s"),
        ("reason", result.sentence or "-"),
        ("reports sent / accepted", f"{result.reports:,} / {result.accepted:,}"),
        ("refused", ", ".join(f"{reason} {count:,}" for reason, count in sorted(result.refused.items())) or "none"),
        ("event time / wall time", f"{result.event_seconds:.0f} s / {result.wall_seconds:.1f} s"),
        ("as the truth asks", f"{'yes' if result.as_expected else 'NO'} ({result.truth_decision})"),
    )
    for name, value in rows:
        table.add_row(name, value)
    return table


@click.command()
@click.argument("scenario")
@click.option("--devices", type=click.IntRange(1, 8_500_000), help="Size of the fleet; else the scenario's.")
@click.option("--speed", type=float, help="Event seconds per wall second at most; as fast as possible if not given.")
@click.option("--no-kill-switch", is_flag=True, help="Note the kill switch and don't obey it: the counterfactual.")
@click.option("--gateway", metavar="URL", help="Reports listener of a running Cordon, in a lane that is not live.")
@click.option("--streams", metavar="URL", help="Its listener for verdicts and event streams.")
@click.option("--token-file", type=_FILE, help="Holds the token to use there.")
@click.option("--lane", default=LANE, show_default=True, help="Its lane.")
@click.option("--keys", type=_FILE, help="Its public keys; fetched if not given.")
@click.option("--json", "json_file", type=_FILE, help="Write the result here too.")
def replay(
    scenario: str,
    devices: int | None,
    speed: float | None,
    no_kill_switch: bool,
    gateway: str | None,
    streams: str | None,
    token_file: Path | None,
    lane: str,
    keys: Path | None,
    json_file: Path | None,
) -> None:
    """Replay SCENARIO, a name from the library or a TOML file."""
    if len({gateway is None, streams is None, token_file is None}) != 1:
        raise click.UsageError("--gateway, --streams and --token-file go together; without them a Cordon is started")
    try:
        found = load(scenario)
    except ScenarioError as error:
        raise click.UsageError(f"{error} (library: {', '.join(names())})") from error
    beyond = cohort_only(found)
    if beyond:
        raise click.UsageError(
            f"{scenario} has what only the cohort level simulates ({', '.join(beyond)}): use cordon backtest {scenario}"
        )
    if gateway is not None and streams is not None and token_file is not None:
        opened = _remote(gateway, streams, token_file, lane, keys)
    else:
        opened = _embedded()
    try:
        with (
            opened as target,
            connected(
                found,
                **target._asdict(),
                devices=devices,
                speed=speed,
                kill_switch=not no_kill_switch,
                progress=lambda moment: click.echo(moment_line(moment)),
            ) as run,
        ):
            result = run.run()
    except ReplayError as error:
        click.echo(f"the replay failed: {error}", err=True)
        raise SystemExit(2) from error
    Console().print(result_table(result))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    raise SystemExit(0 if result.as_expected else 1)
