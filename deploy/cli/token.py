"""`cordon token`: make the tokens that tenants, rollout systems and operators authenticate with."""

from pathlib import Path

import click

from deploy.cli.options import config_option, settings_of
from ingest.gateway.tenants import Role, TokenBook, TokenBookError


@click.group()
def token() -> None:
    """Make tokens; only their hashes are stored, in tokens.toml."""


@token.command()
@click.argument("name")
@click.option("--tenant", "tenants", multiple=True, help="Tenant it speaks for; `*` for every tenant.")
@click.option("--role", "roles", multiple=True, required=True, type=click.Choice([role.value for role in Role]))
@click.option("--vendor", "vendors", multiple=True, help="Whose view it gives: of a token with the role vendor only.")
@click.option("--data", default=None, help="Data folder; the one in the settings where not given.")
@config_option
def add(
    name: str,
    tenants: tuple[str, ...],
    roles: tuple[str, ...],
    vendors: tuple[str, ...],
    data: str | None,
    config: Path | None,
) -> None:
    """Make a token and print it once: it is kept nowhere.

    A vendor's token: `cordon token add NAME --role vendor --vendor crowdstrike`. It speaks for no tenant and has no
    other role.
    """
    settings = settings_of(config, data_dir=data)
    folder = Path(settings.data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        click.echo(TokenBook.load(folder / "tokens.toml").add(name, tenants, roles, vendors))
    except TokenBookError as error:
        raise click.ClickException(str(error)) from error
