"""The kill switch on the command line: verify, hold, kill, release.

Thin over `signals.client` and the streams listener's HTTP; registered by `deploy.cli.main`. Invariant: an exit code of
0 means that what was asked is true: the event verified, the command was obeyed.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import httpx2

from deploy.cli.streams import HTTP_SECONDS, event_line, fail, read_keys, token_of, token_option, url_option
from signals.client import SwitchError
from signals.killswitch.verify import open_event, parse_envelope

EVENT_FILE_BYTES_MAX = 1 << 20


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path), required=True, help="The JSON of /v1/keys, or a PEM."
)
def verify(file: Any, key_file: Path) -> None:
    """Check one event (a DSSE envelope in JSON; - reads standard input) against public keys. Exits 0 or 1."""
    trusted = read_keys(key_file)
    data = file.read(EVENT_FILE_BYTES_MAX + 1)
    if len(data) > EVENT_FILE_BYTES_MAX:
        fail(f"NOT BELIEVED: an event has at most {EVENT_FILE_BYTES_MAX} bytes")
    try:
        verified = open_event(parse_envelope(data), trusted)
    except SwitchError as error:
        fail(f"NOT BELIEVED: {error}")
    click.echo(f"verified: {event_line(verified.switch)}")
    click.echo(
        f"signed by a key in {key_file}; digest {verified.digest}; follows {verified.switch.previous_digest or '-'}"
    )


def _command(action: str, doc: str) -> click.Command:
    @click.command(action, help=doc)
    @click.argument("rollout")
    @click.option("--reason", required=True, help="Why; it goes into the event and the trail.")
    @click.option("--name", default="", help="Who asks, when a token is shared.")
    @url_option
    @token_option
    def run(rollout: str, reason: str, name: str, url: str, token_file: Path | None) -> None:
        body = {"reason": reason, "name": name}
        answer = _post(
            f"{url.rstrip('/')}/v1/rollouts/{quote(rollout, safe='')}/{action}?wait=1", body, token_of(token_file)
        )
        click.echo(f"{rollout} is {answer['state']} (event {answer['number']}): {action} by a person, {reason}")

    return run


hold = _command("hold", "Hold a rollout until a person releases it.")
kill = _command("kill", "Kill a rollout; only a release ends it.")
release = _command("release", "Release a held or killed rollout; the detector will not stop it again.")


COMMANDS: tuple[click.Command, ...] = (verify, hold, kill, release)


def _post(url: str, body: dict[str, str], token: str | None) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx2.post(url, json=body, headers=headers, timeout=HTTP_SECONDS)
        said: dict[str, Any] = answer.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, json.JSONDecodeError) as error:
        fail(f"no answer that can be read from {url}: {error}")
    if answer.status_code == 202:
        fail(f"asked (command {said['command_id']}), but the switch has not answered in time: is signals running?")
    if answer.status_code == 409:
        fail(f"nothing changed: {said['result']}; the rollout is {said.get('state', 'unknown')}")
    if answer.status_code != 200:
        fail(f"refused ({answer.status_code} {said.get('reason')}): {said.get('detail')}")
    return said
