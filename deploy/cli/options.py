"""What several commands share: settings from file and environment, and their errors as one line."""

import os
from pathlib import Path
from typing import Any

import click

from ingest.settings import Settings, SettingsError, load

config_option = click.option(
    "--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), default=None, help="Configuration file."
)


def settings_of(config: Path | None, **overrides: Any) -> Settings:
    """Return the settings of this process.

    Raises:
        click.ClickException: a setting is unknown or out of its range.
    """
    try:
        return load(os.environ, config, **overrides)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
