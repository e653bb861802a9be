"""Webhooks on the command line: add, list, change, remove, rotate, test, dead, redeliver.

Thin over the streams listener's HTTP; registered by `deploy.cli.main`. Invariant: an exit code of 0 means that what was
asked is true, and `test` exits 1 where the receiver did not take the post.
"""

import json
import os
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import click
import httpx2

from detectors.scope import Scope, ScopeError
from signals.delivery.wanted import Drills
from signals.delivery.webhooks.words import AttemptWord

DEFAULT_URL = "http://127.0.0.1:8401"
_HTTP_SECONDS = 90.0

_server = click.option("--url", "server", default=DEFAULT_URL, show_default=True, help="Cordon's streams listener.")
_token_file = click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="File with an operator's token; otherwise CORDON_TOKEN is used.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
_rollout = click.option("--rollout", "rollouts", multiple=True, help="Only this rollout's events; may be repeated.")
_product = click.option("--product", "products", multiple=True, help="Only this VENDOR/PRODUCT; may be repeated.")
_scope = click.option("--scope", help="Only what binds this part of a fleet: ring=NAME;os_build=BUILD;...")
_drills = click.option("--drills", type=click.Choice([word.value for word in Drills]), help="Events of drills.")
_note = click.option("--note", help="What it is for.")


@click.group()
def webhooks() -> None:
    """Have kill-switch events posted to receivers, and see how they fare."""


@webhooks.command()
@click.argument("target")
@_rollout
@_product
@_scope
@_drills
@_note
@click.option("--from-start", is_flag=True, help="Begin with the first event ever, not with the next one.")
@_server
@_token_file
@_json
def add(target: str, from_start: bool, server: str, token_file: Path | None, as_json: bool, **chosen: Any) -> None:
    """Post events to TARGET (https://HOST/PATH), and print the secret, this once."""
    body = {"url": target, **_chosen(chosen)} | ({"start": "start"} if from_start else {})
    made = _ask("POST", server, "", token_file, body)
    if as_json:
        click.echo(json.dumps(made))
        return
    click.echo(f"{made['webhook']['id']} posts to {target}")
    click.echo(f"secret   {made['secret']}")
    click.echo("The secret is not shown again: give it to the receiver.", err=True)


@webhooks.command(name="list")
@_server
@_token_file
@_json
def list_(server: str, token_file: Path | None, as_json: bool) -> None:
    """List every webhook and how it fares."""
    found = _ask("GET", server, "", token_file)
    if as_json:
        click.echo(json.dumps(found))
        return
    for one in found:
        state = one["disabled"] or ("enabled" if one["enabled"] else "paused")
        click.echo(
            f"{one['id']}  {state:8} delivered {one['delivered']}, waiting {one['waiting']}, dead {one['dead']}  "
            f"{one['url']}  {one['note']}".rstrip()
        )
        if one["last"]:
            click.echo(f"    last attempt: {one['last']}")


@webhooks.command()
@click.argument("webhook")
@click.option("--target", help="Post to this URL from now on.")
@_rollout
@_product
@_scope
@_drills
@_note
@click.option("--enable/--pause", "enabled", default=None, help="Serve it, or keep what it misses for later.")
@click.option("--from", "start", type=click.Choice(["latest", "start"]), help="Begin there anew.")
@_server
@_token_file
def change(
    webhook: str,
    target: str | None,
    enabled: bool | None,
    start: str | None,
    server: str,
    token_file: Path | None,
    **chosen: Any,
) -> None:
    """Change, pause or enable a webhook; what is not named stays as it is."""
    given = {"url": target, "enabled": enabled, "start": start}
    body = _chosen(chosen) | {name: value for name, value in given.items() if value is not None}
    if not body:
        _fail("nothing to change: name what should be otherwise, `cordon webhooks change --help` lists it")
    one = _ask("POST", server, f"/{quote(webhook, safe='')}", token_file, body)
    click.echo(f"{one['id']} is {'enabled' if one['enabled'] else 'paused'} and posts to {one['url']}")


@webhooks.command()
@click.argument("webhook")
@_server
@_token_file
def remove(webhook: str, server: str, token_file: Path | None) -> None:
    """Remove a webhook with its dead letters."""
    _ask("DELETE", server, f"/{quote(webhook, safe='')}", token_file)
    click.echo(f"{webhook} is removed")


@webhooks.command()
@click.argument("webhook")
@_server
@_token_file
def rotate(webhook: str, server: str, token_file: Path | None) -> None:
    """Make a new secret and print it, this once; for a day the one before signs too."""
    click.echo(_ask("POST", server, f"/{quote(webhook, safe='')}/rotate", token_file)["secret"])


@webhooks.command()
@click.argument("webhook")
@_server
@_token_file
def test(webhook: str, server: str, token_file: Path | None) -> None:
    """Post an event that says nothing, once. Exits 1 if the receiver does not take it."""
    said = _ask("POST", server, f"/{quote(webhook, safe='')}/test", token_file)
    if said["word"] != AttemptWord.DELIVERED:
        _fail(f"{webhook} did not take it: {said['word']}: {said['detail']}")
    click.echo(f"{webhook} took it: {said['detail']}")


@webhooks.command()
@click.argument("webhook")
@_server
@_token_file
@_json
def dead(webhook: str, server: str, token_file: Path | None, as_json: bool) -> None:
    """List the events that a webhook would not take."""
    letters = _ask("GET", server, f"/{quote(webhook, safe='')}/dead", token_file)
    if as_json:
        click.echo(json.dumps(letters))
        return
    for letter in letters:
        click.echo(f"{letter['event_id']}  {letter['word']} after {letter['tries']} tries: {letter['detail']}")


@webhooks.command()
@click.argument("webhook")
@click.option("--event", "event_id", default="", help="Only this event's id; all dead letters where not given.")
@_server
@_token_file
def redeliver(webhook: str, event_id: str, server: str, token_file: Path | None) -> None:
    """Deliver dead letters again, after whatever went wrong is mended."""
    said = _ask("POST", server, f"/{quote(webhook, safe='')}/redeliver", token_file, {"event_id": event_id})
    click.echo(f"{said['events']} events will be delivered again")


def _chosen(given: dict[str, Any]) -> dict[str, Any]:
    body = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if value}
    if "scope" in body:
        try:
            scope = Scope.parse(str(body["scope"]))
        except ScopeError as error:
            _fail(str(error))
        body["scope"] = {name: value for name in scope.__struct_fields__ if (value := getattr(scope, name))}
    return body


def _ask(method: str, server: str, path: str, token_file: Path | None, body: dict[str, Any] | None = None) -> Any:
    token, url = _token(token_file), f"{server.rstrip('/')}/v1/webhooks{path}"
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx2.request(method, url, json=body, headers=headers, timeout=_HTTP_SECONDS)
        said = answer.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, json.JSONDecodeError) as error:
        _fail(f"no answer that can be read from {url}: {error}. Is Cordon up there? --url names another")
    if answer.status_code >= 300:
        _fail(f"refused ({answer.status_code} {said.get('reason')}): {said.get('detail')}")
    return said


def _token(token_file: Path | None) -> str | None:
    if token_file is None:
        return os.environ.get("CORDON_TOKEN")
    try:
        return token_file.read_text().strip()
    except OSError as error:
        _fail(f"cannot read the token in {token_file}: {error.strerror}")


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    raise SystemExit(1)
