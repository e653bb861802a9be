"""`cordon drill`: a synthetic bad rollout through a running Cordon; 0 when it was killed in time."""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
from prometheus_client import start_http_server

from deploy.drill.access import Access, fetched_keys, token_in
from deploy.drill.errors import DrillError
from deploy.drill.regular import RegularDrill
from deploy.drill.run import new_plan, run_drill
from detectors.drill import LIMIT_SECONDS_MAX
from detectors.drill_judge import DrillResult
from ingest.clock import WallClock
from ingest.gateway.tenants import TokenBook, TokenBookError
from ingest.metrics import Metrics
from signals.client import PublicKeys
from signals.killswitch.keys import KeyFiles
from signals.killswitch.signing import KeyFormatError

NOT_RUN_CODE = 2
# A drill's events are kept for ever and its rollouts stay under watch for a while: not too many of them.
EVERY_SECONDS_LEAST = 600
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Interval(click.ParamType):
    """A span such as `24h`, `90m` or `1d`, in seconds."""

    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds, or fail with what is wrong."""
        found = re.fullmatch(r"(\d{1,7})([smhd])", str(value))
        if found is None:
            self.fail(f"{value!r}: give a number with s, m, h or d behind it, for instance 24h", param, ctx)
        seconds = int(found[1]) * _SECONDS[found[2]]
        if seconds < EVERY_SECONDS_LEAST:
            self.fail(f"{value!r}: drills must be {EVERY_SECONDS_LEAST // 60} minutes apart at least", param, ctx)
        return seconds


@click.command()
@click.option("--gateway", default="http://127.0.0.1:8400", show_default=True, help="The gateway's reports listener.")
@click.option("--streams", default="http://127.0.0.1:8401", show_default=True, help="The streams listener.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the token; otherwise CORDON_TOKEN.")
@click.option(
    "--keys", "key_file", type=click.Path(path_type=Path), help="Public keys: the JSON of /v1/keys, or a PEM."
)
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Take token and keys from this data folder."
)
@click.option(
    "--limit", default=60.0, show_default=True, type=click.FloatRange(1, LIMIT_SECONDS_MAX), help="Seconds to the kill."
)
@click.option("--every", type=Interval(), help="Go on for ever: a drill now, and again after each such span (24h).")
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="With --every: serve the drill's metrics there.")
@click.option("--json", "as_json", is_flag=True, help="Print each result as a line of JSON.")
def drill(
    gateway: str,
    streams: str,
    token_file: Path | None,
    key_file: Path | None,
    data: Path | None,
    limit: float,
    every: int | None,
    metrics_port: int | None,
    as_json: bool,
) -> None:
    """Send a synthetic bad rollout through a running Cordon: it must be killed.

    Exits with 0 when it was, in time, by a signed event that verifies; with 1 when it was not; with 2 when the drill
    could not be run. The token speaks for the drill's own tenants, cordon-drill-a to -h, with the roles report and
    rollout; with --data it is made where it is missing.
    """
    if metrics_port is not None and every is None:
        raise click.UsageError("--metrics-port needs --every: one drill ends before anybody could ask")
    show = _show_json if as_json else _show
    try:
        access = Access(gateway, streams, _token(token_file, data), _keys(key_file, data, streams))
        if every is None:
            result = run_drill(access, new_plan(WallClock(), limit), WallClock())
            show(result)
            sys.exit(0 if result.passed else 1)
    except DrillError as error:
        show(error)
        sys.exit(NOT_RUN_CODE)
    _run_for_ever(access, every, limit, metrics_port, show)


def _run_for_ever(
    access: Access, every: int, limit: float, metrics_port: int | None, show: Callable[[DrillResult | DrillError], None]
) -> None:
    metrics = Metrics()
    begun = False

    def next_ms(now_ms: int) -> int:
        nonlocal begun
        at_once, begun = not begun, True
        return now_ms if at_once else now_ms + every * 1000

    regular = RegularDrill(lambda: access, next_ms, WallClock(), metrics, show, limit)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: regular.stop())
    if metrics_port is not None:
        start_http_server(metrics_port, registry=metrics.registry)
    regular.run()


def _token(token_file: Path | None, data: Path | None) -> str:
    if token_file is not None:
        try:
            return token_file.read_text().strip()
        except OSError as error:
            raise DrillError(f"cannot read the token in {token_file}: {error.strerror}") from error
    if data is not None:
        if not (data / "tokens.toml").exists():
            raise DrillError(f"no tokens.toml in {data}: name the data folder of a gateway, or give --token-file")
        try:
            return token_in(data, TokenBook.load(data / "tokens.toml"))
        except TokenBookError as error:
            raise DrillError(str(error)) from error
    token = os.environ.get("CORDON_TOKEN", "")
    if not token:
        raise DrillError("give the drill a token: --data FOLDER on the gateway's machine, --token-file or CORDON_TOKEN")
    return token


def _keys(key_file: Path | None, data: Path | None, streams: str) -> PublicKeys:
    try:
        if key_file is not None:
            return PublicKeys.parse(key_file.read_bytes())
        if data is not None:
            return KeyFiles(data).public()
    except OSError as error:
        raise DrillError(f"cannot read the keys in {key_file}: {error.strerror}") from error
    except KeyFormatError as error:
        raise DrillError(str(error)) from error
    click.echo("no --keys given: believing the keys that this server publishes itself", err=True)
    return fetched_keys(streams)


def _show(result: DrillResult | DrillError) -> None:
    if isinstance(result, DrillError):
        click.echo(f"DRILL NOT RUN: {result}", err=True)
        return
    head = "DRILL PASSED" if result.passed else f"DRILL FAILED ({result.failure})"
    click.echo(f"{head}: {result.sentence}", err=not result.passed)
    counted = result.counted
    seen = (
        f"{counted.crashes_exposed} of them counted, evidence 10^{counted.log10_evidence:.1f}"
        if counted
        else "none counted"
    )
    click.echo(f"rollout {result.rollout}, version {result.version}: {result.crashes_posted} crashes posted, {seen}")
    if result.passed and result.crashes_expected is not None:
        click.echo(f"the built-in policy is expected to need about {result.crashes_expected} crashes")


def _show_json(result: DrillResult | DrillError) -> None:
    if isinstance(result, DrillError):
        click.echo(msgspec.json.encode({"result": "not_run", "sentence": str(result)}).decode())
        return
    word = {"result": "passed" if result.passed else "failed"}
    click.echo(msgspec.json.encode(word | msgspec.to_builtins(result)).decode())
