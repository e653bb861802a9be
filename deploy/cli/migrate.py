"""`cordon migrate`: the store's numbered migrations, for a Cordon that is not running.

`cordon up` applies what is missing by itself; these commands show where a store stands and bring it up to date without
starting anything: a ClickHouse server's before workers start, or a data folder's. Embedded data has one owner process,
so both refuse while `cordon up` has the folder.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from deploy.cli.options import config_option, settings_of
from ingest.settings import SettingsError
from ingest.store.interface import StoreError
from ingest.store.migrate import Migrator
from ingest.store.server import migrator_of, store_of

data_option = click.option("--data", default=None, help="Data folder; the one in the settings where not given.")


@click.group()
def migrate() -> None:
    """Show or apply the store's migrations while Cordon is down."""


@contextmanager
def _migrator(data: str | None, config: Path | None) -> Iterator[Migrator]:
    settings = settings_of(config, data_dir=data)
    folder = Path(settings.data_dir) / "store"
    if not settings.clickhouse_host and not folder.is_dir():
        raise click.ClickException(f"{folder} holds no store: `cordon up --data {settings.data_dir}` makes one")
    try:
        store = store_of(settings)
        try:
            yield migrator_of(settings, store)
        finally:
            store.close()
    except (StoreError, SettingsError) as error:
        raise click.ClickException(str(error)) from error


@migrate.command()
@data_option
@config_option
def status(data: str | None, config: Path | None) -> None:
    """List the migrations and whether each is applied."""
    with _migrator(data, config) as migrator:
        for one in migrator.status():
            applied = f"applied {one.applied_at}" if one.applied else "missing"
            click.echo(f"{one.migration.number:04d}  {one.migration.name:24} {applied}")


@migrate.command()
@data_option
@config_option
def apply(data: str | None, config: Path | None) -> None:
    """Apply what is missing."""
    with _migrator(data, config) as migrator:
        applied = migrator.apply()
    for migration in applied:
        click.echo(f"{migration.number:04d}  {migration.name}")
    click.echo(f"{len(applied)} applied")
