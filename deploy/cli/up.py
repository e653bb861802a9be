"""`cordon up`: start Cordon to stay, in one process."""

import sys
from pathlib import Path

import click

from deploy.cli.options import config_option, settings_of
from ingest.gateway.tenants import TokenBook, TokenBookError
from ingest.log.interface import LogError
from ingest.store.interface import StoreError

FIRST_TOKENS = (
    ("agents", ("*",), ("report",)),
    ("rollouts", ("*",), ("rollout",)),
    ("operator", ("*",), ("operator",)),
)


def first_tokens(data_dir: Path) -> list[tuple[str, Path]]:
    """Make the first tokens of a new installation, one file each, readable by their owner only.

    Raises:
        TokenBookError: there are tokens that can't be read.
        OSError: the folder can't be used.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    if (data_dir / "tokens.toml").exists():
        return []
    book = TokenBook.load(data_dir / "tokens.toml")
    made = []
    for name, tenants, roles in FIRST_TOKENS:
        path = data_dir / f"{name}.token"
        path.touch(mode=0o600)
        path.write_text(book.add(name, tenants, roles) + "\n")
        made.append((name, path))
    return made


@click.command()
@click.option("--data", default=None, help="Data folder; the one in the settings where not given.")
@click.option("--lane", default=None, help="Lane of this run; rollout systems obey `live` only.")
@click.option("--store/--no-store", default=None, help="Keep raw crashes and aggregates in ClickHouse (chdb).")
@config_option
def up(data: str | None, lane: str | None, store: bool | None, config: Path | None) -> None:
    """Start Cordon and run until SIGTERM or Ctrl-C."""
    settings = settings_of(config, data_dir=data, lane=lane, store=store)
    from deploy.embedded import Embedded
    from deploy.serving.configuration import ConfigurationError
    from deploy.serving.loop import run_on_loop
    from deploy.serving.run import live
    from deploy.serving.servers import ListenError

    try:
        made = first_tokens(Path(settings.data_dir))
    except OSError as error:
        raise click.ClickException(
            f"cannot use the data folder {settings.data_dir}: {error.strerror}. Name another with --data, or mend it"
        ) from error
    except TokenBookError as error:
        raise click.ClickException(str(error)) from error
    for name, path in made:
        click.echo(f"token    {name} in {path}")
    try:
        code = run_on_loop(live(lambda: Embedded(settings)))
    except (LogError, StoreError, ListenError, ConfigurationError, TokenBookError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(code)
