"""`cordon plan`: how fast a rollout may be pushed, and how much at a time, so that Cordon can decide in time.

Thin over `detectors.planning`; it reads the body of POST /v1/rollouts and asks no Cordon, so a rollout can be planned
before there is one. The exit code is 1 where the declaration exceeds what can be decided in time.
"""

import math
import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from detectors.planning import PolicyPlanner
from detectors.policy import PolicyError, load
from ingest.planning import Advice, RingAdvice
from ingest.rollouts import Bound, Rollout, RolloutDeclaration, ring_names, rollout_id

_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


def rollout_of(body: bytes) -> Rollout:
    """Return what the gateway would record of a declaration, as far as planning asks.

    Raises:
        ValueError: it is no declaration, or contradicts itself.
    """
    declared = msgspec.json.decode(body, type=RolloutDeclaration)
    ring_names(declared.rings, declared.ring_devices)
    return Rollout(
        rollout=rollout_id(declared.vendor, declared.product, declared.version),
        vendor=declared.vendor,
        product=declared.product,
        update_kind=declared.update_kind,
        version=declared.version,
        origin_ms=declared.starts_at_ms or 0,
        bound=Bound.DECLARED,
        rings=declared.rings,
        ring_devices=declared.ring_devices,
        pushed_devices=sum(len(push.devices) for push in declared.pushed),
    )


@click.command()
@click.argument("declaration", type=_FILE)
@click.option("--policy", "path", type=click.Path(path_type=Path, dir_okay=False), help="Policy file.")
@click.option("--json", "as_json", is_flag=True, help="Print the advice as JSON.")
def plan(declaration: Path, path: Path | None, as_json: bool) -> None:
    """Say how fast to push a rollout so that Cordon can stop a bad one in time.

    DECLARATION is a file with the body of POST /v1/rollouts, or `-`. Tell the size of each ring in `ring_devices`:

    {"vendor": "contoso", "product": "sensor", "update_kind": "content", "version": "291",
    "rings": [{"name": "canary", "starts_at_ms": 1721362140000, "over_seconds": 600}], "ring_devices": {"canary": 600}}
    """
    try:
        body = sys.stdin.buffer.read() if str(declaration) == "-" else declaration.read_bytes()
        rollout, policies = rollout_of(body), load(path)
    except (OSError, PolicyError) as error:
        raise click.ClickException(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{declaration} is no rollout declaration: {error}") from error
    advice = PolicyPlanner(policies).advise(rollout)
    if as_json:
        click.echo(msgspec.json.encode(advice))
    else:
        _show(advice)
    if any(ring.warnings for ring in advice.rings):
        raise SystemExit(1)


def _show(advice: Advice) -> None:
    console = Console(width=120)
    console.print(_table(advice))
    console.print(
        f"planned for: {100 * advice.crash_probability:g} % of the devices crash; at most {advice.loss_max:,} may, "
        f"{100 * advice.certainty:g} % sure; a ring of {advice.devices_any:,} may be pushed at any speed"
    )
    for ring in advice.rings:
        for warning in ring.warnings:
            console.print(f"[yellow]![/yellow] {warning}")
    if not advice.rings:
        console.print("neither rings nor lists are declared: there is nothing to advise on")


def _table(advice: Advice) -> Table:
    table = Table(title=f"rollout {advice.rollout}")
    for column in (
        "ring",
        "devices",
        "a minute",
        "at most",
        "over at least",
        "stopped after",
        "lost by then",
        "gate after",
    ):
        table.add_column(column, justify="left" if column == "ring" else "right")
    for ring in advice.rings:
        table.add_row(ring.ring or "(lists)", *_numbers(ring))
    return table


def _numbers(ring: RingAdvice) -> list[str]:
    paced = f"{math.floor(ring.per_minute_max):,}" if ring.per_minute_max is not None else ring.pace.value
    return [
        "-" if ring.devices is None else f"{ring.devices:,}",
        "-" if ring.per_minute is None else f"{ring.per_minute:,.0f}",
        paced,
        _seconds(ring.over_seconds_least),
        _seconds(ring.stopped_seconds),
        "-" if ring.lost is None else f"{ring.lost:,.0f}",
        _seconds(ring.gate_seconds),
    ]


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:,.0f} s" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
