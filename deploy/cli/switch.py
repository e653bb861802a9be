"""The kill switch on the command line: watch, verify, hold, kill, release, keys.

Thin over `signals.client` and the streams listener's HTTP; registered by `deploy.cli.main`. Invariant: an exit code of
0 means that what was asked is true: the event verified, the command was obeyed.
"""

import json
import os
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import click
import httpx2

from detectors.drill import is_drill
from signals.client import ClientError, KillSwitchClient, PublicKeys, SwitchError
from signals.events import Switch
from signals.killswitch.keys import KeyFiles
from signals.killswitch.signing import KeyFormatError
from signals.killswitch.verify import open_event, parse_envelope

DEFAULT_URL = "http://127.0.0.1:8401"
EVENT_FILE_BYTES_MAX = 1 << 20
_HTTP_SECONDS = 10.0

_url = click.option("--url", default=DEFAULT_URL, show_default=True, help="Address of Cordon's streams listener.")
_token_file = click.option(
    "--token-file", type=click.Path(path_type=Path), help="File with the token; otherwise CORDON_TOKEN is used."
)
_key = click.option(
    "--key", "key_file", type=click.Path(path_type=Path), help="Public keys: the JSON of /v1/keys, or a PEM."
)


@click.command()
@_url
@_token_file
@_key
@click.option("--rollout", help="Only this rollout's events.")
@click.option("--lane", default="live", show_default=True, help="The lane to believe.")
@click.option("--from-start", is_flag=True, help="Begin with the first event ever.")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@click.option("--json", "as_json", is_flag=True, help="Print each verified event's CloudEvent as a line of JSON.")
def watch(
    url: str,
    token_file: Path | None,
    key_file: Path | None,
    rollout: str | None,
    lane: str,
    from_start: bool,
    count: int | None,
    as_json: bool,
) -> None:
    """Print kill-switch events as they come, each verified; ends with 1 at the first that can't be believed."""
    keys = _keys(url, key_file)
    token = _token(token_file)
    try:
        with KillSwitchClient(
            url, keys, token=token, rollout=rollout, lane=lane, from_start=from_start,
            on_connect=lambda: click.echo(f"watching {url}", err=True),
        ) as client:  # fmt: skip
            for seen, verified in enumerate(client.verified(), 1):
                click.echo(verified.payload.decode() if as_json else _line(verified.switch))
                if seen == count:
                    return
    except SwitchError as error:
        _fail(f"NOT BELIEVED: {error}")
    except ClientError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        return


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path), required=True, help="The JSON of /v1/keys, or a PEM."
)
def verify(file: Any, key_file: Path) -> None:
    """Check one event (a DSSE envelope in JSON; - reads standard input) against public keys. Exits 0 or 1."""
    trusted = _read_keys(key_file)
    data = file.read(EVENT_FILE_BYTES_MAX + 1)
    if len(data) > EVENT_FILE_BYTES_MAX:
        _fail(f"NOT BELIEVED: an event has at most {EVENT_FILE_BYTES_MAX} bytes")
    try:
        verified = open_event(parse_envelope(data), trusted)
    except SwitchError as error:
        _fail(f"NOT BELIEVED: {error}")
    click.echo(f"verified: {_line(verified.switch)}")
    click.echo(
        f"signed by a key in {key_file}; digest {verified.digest}; follows {verified.switch.previous_digest or '-'}"
    )


def _command(action: str, doc: str) -> click.Command:
    @click.command(action, help=doc)
    @click.argument("rollout")
    @click.option("--reason", required=True, help="Why; it goes into the event and the trail.")
    @click.option("--name", default="", help="Who asks, when a token is shared.")
    @_url
    @_token_file
    def run(rollout: str, reason: str, name: str, url: str, token_file: Path | None) -> None:
        body = {"reason": reason, "name": name}
        answer = _post(
            f"{url.rstrip('/')}/v1/rollouts/{quote(rollout, safe='')}/{action}?wait=1", body, _token(token_file)
        )
        click.echo(f"{rollout} is {answer['state']} (event {answer['number']}): {action} by a person, {reason}")

    return run


hold = _command("hold", "Hold a rollout until a person releases it.")
kill = _command("kill", "Kill a rollout; only a release ends it.")
release = _command("release", "Release a held or killed rollout; the detector will not stop it again.")


@click.command()
@click.option("--url", help="Ask a running Cordon; otherwise the data folder is read.")
@click.option("--data-dir", type=click.Path(path_type=Path), default=Path("cordon-data"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the JSON Web Key Set that `watch` and `verify` take.")
def keys(url: str | None, data_dir: Path, as_json: bool) -> None:
    """List the public keys that events are signed with."""
    try:
        found = _fetch_keys(url) if url else KeyFiles(data_dir).public()
    except KeyFormatError as error:
        _fail(str(error))
    if as_json:
        click.echo(found.to_json().decode())
        return
    for key_id in found.ids:
        click.echo(f"{key_id}  Ed25519")


COMMANDS: tuple[click.Command, ...] = (watch, verify, hold, kill, release, keys)


def _line(switch: Switch) -> str:
    who = switch.name or switch.cause
    marks = "".join(f" [{mark}]" for mark in _marks(switch))
    update = f"{switch.vendor}/{switch.product} {switch.version}"
    return (
        f"{switch.decision.value.upper():7} {switch.rollout}/{switch.number} {update}: "
        f"{switch.previous_state.value} -> {switch.state.value} by {who}: {switch.sentence}{marks}"
    )


def _marks(switch: Switch) -> list[str]:
    return (
        (["DRILL"] if is_drill(switch.vendor, switch.product) else [])
        + (["dry run: not to be obeyed"] if switch.dry_run else [])
        + ([f"lane {switch.lane}"] if switch.lane != "live" else [])
    )


def _token(token_file: Path | None) -> str | None:
    if token_file is None:
        return os.environ.get("CORDON_TOKEN")
    try:
        return token_file.read_text().strip()
    except OSError as error:
        _fail(f"cannot read the token in {token_file}: {error.strerror}")


def _keys(url: str, key_file: Path | None) -> PublicKeys:
    if key_file is not None:
        return _read_keys(key_file)
    click.echo("no --key given: believing the keys that this server publishes itself", err=True)
    return _fetch_keys(url)


def _read_keys(key_file: Path) -> PublicKeys:
    try:
        return PublicKeys.parse(key_file.read_bytes())
    except OSError as error:
        _fail(f"cannot read the keys in {key_file}: {error.strerror}")
    except KeyFormatError as error:
        _fail(f"{key_file}: {error}")


def _fetch_keys(url: str) -> PublicKeys:
    try:
        answer = httpx2.get(f"{url.rstrip('/')}/v1/keys", timeout=_HTTP_SECONDS)
        answer.raise_for_status()
        return PublicKeys.parse(answer.content)
    except (httpx2.HTTPError, httpx2.InvalidURL, KeyFormatError) as error:
        _fail(f"no keys from {url}: {error}")


def _post(url: str, body: dict[str, str], token: str | None) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx2.post(url, json=body, headers=headers, timeout=_HTTP_SECONDS)
        said: dict[str, Any] = answer.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, json.JSONDecodeError) as error:
        _fail(f"no answer that can be read from {url}: {error}")
    if answer.status_code == 202:
        _fail(f"asked (command {said['command_id']}), but the switch has not answered in time: is signals running?")
    if answer.status_code == 409:
        _fail(f"nothing changed: {said['result']}; the rollout is {said.get('state', 'unknown')}")
    if answer.status_code != 200:
        _fail(f"refused ({answer.status_code} {said.get('reason')}): {said.get('detail')}")
    return said


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    raise SystemExit(1)
