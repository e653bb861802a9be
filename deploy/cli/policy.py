"""`cordon policy`: check a policy file, explain what it would do, show what is in effect.

The exit code is 0 for a policy that Cordon would start with, 2 for one that it refuses. Warnings don't change it: a
policy may be dangerous on purpose.
"""

import tomllib
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
from rich.console import Console
from rich.table import Table

from deploy.cli.options import config_option, settings_of
from deploy.cli.policy_docs import fields_of
from deploy.cli.policy_words import POOLED_NOTE, RATIOS, SHARES, Explanation, explain
from detectors.policy import Policies, Policy, PolicyError, load

_FILE = click.Path(path_type=Path, dir_okay=False)
_product = click.option("--product", default=None, metavar="VENDOR/PRODUCT", help="Only this product's policy.")
_json = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")


class InvalidPolicyError(click.ClickException):
    """The policy is none that Cordon would start with."""

    exit_code = 2


class Loaded(NamedTuple):
    """Policies, where they are from, and the products that have one of their own."""

    policies: Policies
    where: str
    products: list[str]


def _loaded(file: Path | None, config: Path | None) -> Loaded:
    """Return the policies of the file, else of the setting `policy_file`, else the built-in one."""
    if file is None:
        named = settings_of(config).policy_file
        file = Path(named) if named else None
    try:
        policies = load(file)
    except PolicyError as error:
        raise InvalidPolicyError(str(error)) from error
    if file is None:
        return Loaded(policies, "the built-in policy", [])
    return Loaded(policies, str(file), list(tomllib.loads(file.read_text(encoding="utf-8")).get("products", {})))


def _chosen(loaded: Loaded, product: str | None) -> dict[str, Policy]:
    policies = loaded.policies
    if product is None:
        return {
            "every product": policies.default,
            **{name: policies.for_product(*name.split("/", 1)) for name in loaded.products},
        }
    vendor, slash, name = product.partition("/")
    if not (vendor and slash and name):
        raise click.BadParameter(f"{product!r}: write VENDOR/PRODUCT", param_hint="--product")
    return {product: policies.for_product(vendor, name)}


@click.group()
def policy() -> None:
    """Check a policy, explain what it would do, or show what is in effect."""


@policy.command()
@click.argument("file", type=_FILE, required=False)
@_product
@click.option("--tenants", type=click.IntRange(1, 32), default=10, show_default=True, help="Tenants of the fleet.")
@click.option(
    "--rollouts-per-year", type=click.IntRange(1), default=1000, show_default=True, help="To count errors by."
)
@config_option
@_json
def check(
    file: Path | None, product: str | None, tenants: int, rollouts_per_year: int, config: Path | None, as_json: bool
) -> None:
    """Check FILE (or the policy in effect) and explain what it would do; exits 2 if it is refused."""
    loaded = _loaded(file, config)
    found = [explain(one, name, tenants, rollouts_per_year) for name, one in _chosen(loaded, product).items()]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    click.echo(f"{loaded.where} is valid")
    for one in found:
        _explain(one)


def _explain(found: Explanation) -> None:
    click.echo(f"\n{found.product} (policy {found.digest}), {found.tenants} tenants")
    if found.thresholds:
        Console(width=110).print(_table(found))
        click.echo(f"  {POOLED_NOTE}")
    for threshold in found.thresholds:
        if threshold.fleet_least is None:
            click.echo(f"  no fleet can {threshold.decision} by crashes alone")
        else:
            click.echo(
                f"  smallest fleet that can {threshold.decision} by crashes alone: {threshold.fleet_least} devices, of "
                f"which {threshold.devices_least} are exposed and all crash"
            )
    _list("holds on", found.holds)
    _list("proceeds only with all of", found.proceeds)
    _list("warnings", found.warnings or ["none"])


def _table(found: Explanation) -> Table:
    table = Table(
        title="crashes until half of the rollouts with such harm are decided, by rate ratio and exposed share"
    )
    table.add_column("share")
    for threshold in found.thresholds:
        for ratio in RATIOS:
            table.add_column(f"{threshold.decision}\n{ratio:g}x", justify="right")
    needed = {
        (threshold.decision, one.share, one.ratio): one.crashes
        for threshold in found.thresholds
        for one in threshold.crashes
    }
    for share in SHARES:
        cells = [
            "never" if (count := needed[threshold.decision, share, ratio]) is None else f"{count:,}"
            for threshold in found.thresholds
            for ratio in RATIOS
        ]
        table.add_row(f"{share:g}", *cells)
    thresholds = ", ".join(
        f"{one.decision} at 10^{one.log10_evidence:.1f} (10^{one.log10_alone:.1f} of the rate ratio alone)"
        for one in found.thresholds
    )
    table.caption = thresholds
    return table


def _list(title: str, texts: list[str]) -> None:
    click.echo(f"  {title}:")
    for text in texts:
        click.echo(f"    - {text}")


@policy.command()
@click.argument("file", type=_FILE, required=False)
@_product
@config_option
@_json
def show(file: Path | None, product: str | None, config: Path | None, as_json: bool) -> None:
    """Print the policy in effect (or FILE's): every name, its value, and what it means."""
    loaded = _loaded(file, config)
    chosen = _chosen(loaded, product)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(chosen), indent=2).decode())
        return
    built_in = {field.name: field.value for field in fields_of(load().default)}
    for name, one in chosen.items():
        click.echo(f"# {name}, from {loaded.where} (policy {one.digest})")
        for field in fields_of(one):
            changed = "" if field.value == built_in[field.name] else f"  # built in: {_toml(built_in[field.name])}"
            click.echo(f"{field.name} = {_toml(field.value)}{changed}")
            if field.doc:
                click.echo(click.wrap_text(field.doc, 110, "    # ", "    # "))
        click.echo()


def _toml(value: object) -> str:
    return "(not set)" if value is None else msgspec.json.encode(value).decode()
