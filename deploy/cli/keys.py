"""`cordon keys`: the keys that events are signed with; list, rotate, retire and export them.

Works on the key files, which running processes look at every second; no command needs a restart. Invariant: an exit
code of 0 means that the files say what was asked.
"""

import datetime as dt
import re
from pathlib import Path
from typing import Any

import click

from deploy.cli.streams import fail, fetch_keys
from signals.killswitch.keys import KeyFiles, KeyRotationError
from signals.killswitch.signing import KeyFormatError, KeyTerm, PublicKeys

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_data_dir = click.option(
    "--data", "--data-dir", "data_dir", type=click.Path(path_type=Path), default=Path("cordon-data"), show_default=True,
    envvar="CORDON_DATA_DIR", help="Data folder.",
)  # fmt: skip
_url = click.option("--url", help="Ask a running Cordon; otherwise the data folder is read.")


class Duration(click.ParamType):
    """A time such as 90s, 30m, 24h or 7d, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r}: write a number and s, m, h or d, for instance 24h", param, ctx)
        return float(int(found[1]) * _UNITS[found[2]])


@click.group()
def keys() -> None:
    """List, rotate, retire and export the keys that events are signed with."""


@keys.command("list")
@_url
@_data_dir
def list_keys(url: str | None, data_dir: Path) -> None:
    """List the public keys with their terms; retired ones stay, so that old events can be verified."""
    found = _found(url, data_dir)
    for kid, term in found.terms().items():
        click.echo(f"{kid}  Ed25519{_said(term)}")


@keys.command()
@_url
@_data_dir
def export(url: str | None, data_dir: Path) -> None:
    """Print the JSON Web Key Set that subscribers, `watch` and `verify` take."""
    click.echo(_found(url, data_dir).to_json().decode())


@keys.command()
@click.option(
    "--overlap", type=Duration(), default="24h", show_default=True,
    help="How long both keys sign: subscribers get the new set, and other hosts the new key, meanwhile.",
)  # fmt: skip
@_data_dir
def rotate(overlap: float, data_dir: Path) -> None:
    """Make the next key, publish it, and let the present one end after the overlap."""
    try:
        kid, term = KeyFiles(data_dir).rotate(overlap)
    except (KeyRotationError, KeyFormatError) as error:
        fail(str(error))
    click.echo(f"{kid}  Ed25519{_said(term)}")
    click.echo("give `cordon keys export` to every subscriber, and the key folder to every host that signs, before the")
    click.echo("overlap ends; running processes see it within a second")


@keys.command()
@click.argument("key_id")
@_data_dir
def retire(key_id: str, data_dir: Path) -> None:
    """End a key now and remove its private half; what is decided from now on is not believed on its word."""
    try:
        term = KeyFiles(data_dir).retire(key_id)
    except (KeyRotationError, KeyFormatError) as error:
        fail(str(error))
    click.echo(f"{key_id} retired{_said(term)}")


def _found(url: str | None, data_dir: Path) -> PublicKeys:
    try:
        return fetch_keys(url) if url else KeyFiles(data_dir).public()
    except KeyFormatError as error:
        fail(str(error))


def _said(term: KeyTerm) -> str:
    since = f"  signs from {_time(term.from_ms)}" if term.from_ms else ""
    return since + (f"  ends {_time(term.until_ms)}" if term.until_ms else "")


def _time(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
