"""What several commands share: settings from file and environment, moments, and their errors as one line."""

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from ingest.settings import Settings, SettingsError, load

_AGO = re.compile(r"(\d{1,5})([mhd])")
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

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


def moment_of(text: str, end: datetime) -> datetime:
    """Return the moment that `--since` or `--until` names: a UTC time, or so long before `end` (90m, 12h, 30d).

    Raises:
        click.BadParameter: it is neither.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return end - int(ago[1]) * _UNITS[ago[2]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: write 90m, 12h, 30d, or a UTC time as 2024-07-19T04:00") from error
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
