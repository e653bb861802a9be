"""`cordon up`: start Cordon to stay, in one process."""

import asyncio
import signal
import sys
from pathlib import Path

import click

from deploy.cli.options import config_option, settings_of
from ingest.gateway.tenants import TokenBook, TokenBookError
from ingest.log.interface import LogError
from ingest.settings import Settings
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


async def _live(settings: Settings) -> int:
    from deploy.embedded import Embedded

    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    embedded = Embedded(settings)
    await embedded.start()
    for name, url in embedded.urls().items():
        click.echo(f"{name:8} {url}")
    click.echo("ready", nl=True)
    sys.stdout.flush()
    ended = asyncio.create_task(end.wait())
    failed = asyncio.create_task(embedded.failed.wait())
    await asyncio.wait({ended, failed}, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    failed.cancel()
    await embedded.stop()
    return 1 if embedded.failed.is_set() else 0


@click.command()
@click.option("--data", default=None, help="Data folder; the one in the settings where not given.")
@click.option("--lane", default=None, help="Lane of this run; rollout systems obey `live` only.")
@click.option("--store/--no-store", default=None, help="Keep raw crashes and aggregates in ClickHouse (chdb).")
@config_option
def up(data: str | None, lane: str | None, store: bool | None, config: Path | None) -> None:
    """Start Cordon and run until SIGTERM or Ctrl-C."""
    settings = settings_of(config, data_dir=data, lane=lane, store=store)
    from deploy.serving.configuration import ConfigurationError
    from deploy.serving.loop import run_on_loop
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
        code = run_on_loop(_live(settings))
    except (LogError, StoreError, ListenError, ConfigurationError, TokenBookError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(code)
