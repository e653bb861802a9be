"""`cordon token`: make the tokens that tenants, rollout systems and operators authenticate with."""

from pathlib import Path

import click

from deploy.cli.options import config_option, settings_of
from ingest.gateway.tenants import Role, TokenBook, TokenBookError


@click.group()
def token() -> None:
    """Make and list tokens; only their hashes are stored."""


@token.command()
@click.argument("name")
@click.option("--tenant", "tenants", multiple=True, required=True, help="Tenant it speaks for; `*` for every tenant.")
@click.option("--role", "roles", multiple=True, required=True, type=click.Choice([role.value for role in Role]))
@click.option("--data", default=None, help="Data folder; the one in the settings where not given.")
@config_option
def add(name: str, tenants: tuple[str, ...], roles: tuple[str, ...], data: str | None, config: Path | None) -> None:
    """Make a token and print it once: it is kept nowhere."""
    settings = settings_of(config, data_dir=data)
    folder = Path(settings.data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        click.echo(TokenBook.load(folder / "tokens.toml").add(name, tenants, roles))
    except TokenBookError as error:
        raise click.ClickException(str(error)) from error
