"""What the commands that run Cordon share: run a process to its end, and put its errors in one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ingest.gateway.tenants import TokenBook, TokenBookError

FIRST_TOKENS = (
    ("agents", ("*",), ("report",)),
    ("rollouts", ("*",), ("rollout",)),
    ("operator", ("*",), ("operator",)),
    ("approver", ("*",), ("approver",)),
)
# A setting is wrong, and starting again won't help (EX_CONFIG).
CONFIGURATION_CODE = 78

leashed_option = click.option("--leashed-to", type=int, default=None, hidden=True, help="End with this parent process.")
data_option = click.option("--data", default=None, help="Data folder; the one in the settings where not given.")
lane_option = click.option("--lane", default=None, help="Lane of this run; rollout systems obey `live` only.")


class WrongConfigurationError(click.ClickException):
    """Shown in one line; a supervisor does not start the process again."""

    exit_code = CONFIGURATION_CODE


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


def show_first_tokens(data_dir: str) -> None:
    """Make the first tokens, and say where they are.

    Raises:
        click.ClickException: the folder or the tokens in it can't be used.
    """
    try:
        made = first_tokens(Path(data_dir))
    except OSError as error:
        raise click.ClickException(
            f"cannot use the data folder {data_dir}: {error.strerror}. Name another with --data, or mend it"
        ) from error
    except TokenBookError as error:
        raise click.ClickException(str(error)) from error
    for name, path in made:
        click.echo(f"token    {name} in {path}")


def require_tokens(data_dir: str) -> None:
    """Return if there are tokens: of a process that must know those the gateway knows, none of its own making help.

    Raises:
        WrongConfigurationError: there are none.
    """
    path = Path(data_dir) / "tokens.toml"
    if not path.exists():
        raise WrongConfigurationError(f"no {path}: copy it from a gateway's data folder, or start the gateway first")


def run_process(make: Callable[[], Any], leashed_to: int | None = None) -> None:
    """Run a composition root to its end, and end this process with its exit code.

    Args:
        make: builds it, on the running loop.
        leashed_to: parent process to end with.

    Raises:
        click.ClickException: it could not be started; the message says what to do.
    """
    from deploy.distributed.leash import leash
    from deploy.serving.configuration import ConfigurationError
    from deploy.serving.loop import run_on_loop
    from deploy.serving.run import live
    from deploy.serving.servers import ListenError
    from ingest.log.interface import LogError
    from ingest.store.interface import StoreError

    if leashed_to is not None:
        leash(leashed_to)
    try:
        code = run_on_loop(live(make))
    except (ConfigurationError, TokenBookError) as error:
        raise WrongConfigurationError(str(error)) from error
    except (LogError, StoreError, ListenError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(code)
