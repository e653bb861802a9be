"""What the commands that talk to the streams listener share: its address, the token, the keys, an event in a line."""

import os
import re
from pathlib import Path
from typing import NoReturn

import click
import httpx2

from detectors.drill import is_drill
from signals.client import PublicKeys
from signals.events import Switch
from signals.killswitch.signing import KeyFormatError

DEFAULT_URL = "http://127.0.0.1:8401"
HTTP_SECONDS = 10.0
# Ends of lines, the terminal's own, and marks that turn the direction of writing.
_NOT_SHOWN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069]")

url_option = click.option("--url", default=DEFAULT_URL, show_default=True, help="Address of Cordon's streams listener.")
token_option = click.option(
    "--token-file", type=click.Path(path_type=Path), help="File with the token; otherwise CORDON_TOKEN is used."
)
key_option = click.option(
    "--key", "key_file", type=click.Path(path_type=Path), help="Public keys: the JSON of /v1/keys, or a PEM."
)


def fail(message: str) -> NoReturn:
    """End with 1 and a message for people."""
    click.echo(message, err=True)
    raise SystemExit(1)


def token_of(token_file: Path | None) -> str | None:
    """Return the token to send."""
    if token_file is None:
        return os.environ.get("CORDON_TOKEN")
    try:
        return token_file.read_text().strip()
    except OSError as error:
        fail(f"cannot read the token in {token_file}: {error.strerror}")


def keys_of(url: str, key_file: Path | None) -> PublicKeys:
    """Return the keys to believe: those of the file, else those that the server publishes itself."""
    if key_file is not None:
        return read_keys(key_file)
    click.echo("no --key given: believing the keys that this server publishes itself", err=True)
    return fetch_keys(url)


def read_keys(key_file: Path) -> PublicKeys:
    """Return the keys of a file."""
    try:
        return PublicKeys.parse(key_file.read_bytes())
    except OSError as error:
        fail(f"cannot read the keys in {key_file}: {error.strerror}")
    except KeyFormatError as error:
        fail(f"{key_file}: {error}")


def fetch_keys(url: str) -> PublicKeys:
    """Return the keys that a server publishes."""
    try:
        answer = httpx2.get(f"{url.rstrip('/')}/v1/keys", timeout=HTTP_SECONDS)
        answer.raise_for_status()
        return PublicKeys.parse(answer.content)
    except (httpx2.HTTPError, httpx2.InvalidURL, KeyFormatError) as error:
        fail(f"no keys from {url}: {error}. Is Cordon up there? --url names another")


def one_line(text: str) -> str:
    """Return a text with what moves the cursor escaped: other people's words can't pose as a line of their own."""
    return _NOT_SHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def event_line(switch: Switch) -> str:
    """Return an event as people read it."""
    who = switch.name or switch.cause
    part = f" ({switch.scope.text})" if not switch.scope.whole else ""
    marks = "".join(f" [{mark}]" for mark in _marks(switch))
    update = f"{switch.vendor}/{switch.product} {switch.version}"
    return one_line(
        f"{switch.decision.value.upper():7} {switch.rollout}/{switch.number} {update}{part}: "
        f"{switch.previous_state.value} -> {switch.state.value} by {who}: {switch.sentence}{marks}"
    )


def _marks(switch: Switch) -> list[str]:
    return (
        (["DRILL"] if is_drill(switch.vendor, switch.product) else [])
        + (["dry run: not to be obeyed"] if switch.dry_run else [])
        + (["glass broken: released by one person"] if switch.break_glass else [])
        + ([f"lane {switch.lane}"] if switch.lane != "live" else [])
    )
