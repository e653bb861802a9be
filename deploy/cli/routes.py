"""`cordon routes`: who would be paged, and why; and whether a registry of routes can be used.

Thin over `signals.pagers.registry`. Invariant: an exit code of 0 from `check` means that a running Cordon takes the
file, secrets included.
"""

import os
import sys
from pathlib import Path

import click

from detectors.verdict import DecisionWord
from ingest.settings import Settings, load
from signals.pagers.channels.factory import ChannelError, channel_of, per_minute
from signals.pagers.registry import DEFAULT_OWNER, Owned, Registry, RegistryError
from signals.pagers.registry import load as load_registry
from signals.pagers.words import Level

_LEVELS = {DecisionWord.KILL: Level.CRITICAL, DecisionWord.HOLD: Level.HIGH}


@click.group()
def routes() -> None:
    """Explain and check the registry of vendors, modules and pagers."""


_file = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The registry; the setting routes_file if not given.",
)


@routes.command("test")
@click.argument("module")
@click.option("--vendor", default="", help="The vendor that the rollout names.")
@click.option("--product", default="", help="The product that is rolled out.")
@click.option("--signer", default="", help="Who signed the module.")
@_file
def test(module: str, vendor: str, product: str, signer: str, path: Path | None) -> None:
    """Say who would be told if MODULE crashes on a rollout's devices, and why.

    With --product (and --vendor) it is about a rollout of that product; without, about a rollout by the module's owner.
    """
    registry = _registry(path)
    crashed = registry.owner_of_module(module, signer)
    click.echo(f"module {module}: {crashed.owner}\n  because {crashed.why}")
    rolled = registry.owner_of_rollout(vendor, product) if product or vendor else crashed
    if product or vendor:
        click.echo(f"rollout of {vendor or '?'} {product or '?'}: {rolled.owner}\n  because {rolled.why}")
    for decision, level in _LEVELS.items():
        click.echo(f"on a {decision.value}:")
        for line in _told(registry, rolled, level):
            click.echo(f"  {line}")
        if crashed.owner not in (rolled.owner, DEFAULT_OWNER):
            also = registry.co_victim_of(crashed.owner, level)
            for line in _told(registry, crashed, also):
                click.echo(f"  as owner of the crashing module: {line}")
    click.echo(f"while it is only watched: {_watching(registry, rolled)}")


@routes.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--without-secrets", is_flag=True, help="Do not read the secrets, which may be on another machine.")
def check(path: Path, without_secrets: bool) -> None:
    """Check a registry: its form, its names, and that every route's channel can be made. Exits 0 or 1."""
    registry = _registry(path)
    problems = []
    for name, route in sorted(registry.routes.items()):
        if not without_secrets:
            try:
                channel_of(name, route, path.parent).close()
            except ChannelError as error:
                problems.append(str(error))
        click.echo(
            f"route {name}: {route.channel.value}, from {route.threshold.value} on, {per_minute(route)} a minute"
        )
    for problem in problems:
        click.echo(problem, err=True)
    click.echo(f"{len(registry.routes)} routes, {len(registry.vendors)} vendors, lanes {', '.join(registry.lanes)}")
    sys.exit(1 if problems else 0)


def _registry(path: Path | None) -> Registry:
    found = path or _set_path()
    try:
        return load_registry(found)
    except RegistryError as error:
        raise click.ClickException(str(error)) from error


def _set_path() -> Path:
    settings: Settings = load(os.environ)
    if not settings.routes_file:
        raise click.ClickException("give --file, or set CORDON_ROUTES_FILE to the registry")
    return Path(settings.routes_file)


def _told(registry: Registry, owned: Owned, level: Level) -> list[str]:
    lines = []
    for name in registry.routes_of(owned.owner):
        route = registry.routes[name]
        if not level.reaches(route.threshold):
            lines.append(f"{owned.owner} is not told over {name}: {level.value} is less than {route.threshold.value}")
            continue
        fallbacks = ", ".join(registry.fallbacks_of(name)) or "nobody"
        lines.append(
            f"{owned.owner} is told over {name} ({route.channel.value}) at level {level.value}; "
            f"if that fails for {route.escalate_seconds} s, {fallbacks}"
        )
    return lines


def _watching(registry: Registry, owned: Owned) -> str:
    level = registry.watching_of(owned.owner)
    told = [name for name in registry.routes_of(owned.owner) if level.reaches(registry.routes[name].threshold)]
    return f"{owned.owner} hears over {', '.join(told)}" if told else "nobody hears"
