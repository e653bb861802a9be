"""What people ask of the kill switch: hold, kill, release, approve, mute, dry-run, arm, and what waits for approval.

Thin over the streams listener's HTTP; registered by `deploy.cli.main`. Invariant: an exit code of 0 means that what was
asked is true now. 3 means that a release waits for a second person; 1 that nothing changed, or that nobody knows.
"""

import datetime as dt
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import httpx2
import msgspec

from deploy.cli.keys import Duration
from deploy.cli.streams import HTTP_SECONDS, fail, one_line, token_of, token_option, url_option
from signals.delivery.http.command_bodies import PendingReleases
from signals.killswitch.results import COMMAND_RESULT_DOCS, CommandResult

PENDING_CODE = 3

_reason = click.option("--reason", required=True, help="Why; it goes into the event and the trail.")
_name = click.option("--name", default="", help="Who asks, when a token is shared.")
_scope = click.option(
    "--scope", default="", help="Only this part, such as `ring=canary` or `os_build=22631;tenant=acme`; else the whole."
)


@click.command()
@click.argument("rollout")
@_reason
@_scope
@click.option("--for", "seconds", type=Duration(), help="How long, such as 30m; else until a release.")
@_name
@url_option
@token_option
def hold(
    rollout: str, reason: str, scope: str, seconds: float | None, name: str, url: str, token_file: Path | None
) -> None:
    """Hold a rollout, or a part of it, at once: for a while, or until a person releases it."""
    body = {"reason": reason, "scope": scope, "name": name} | _end(seconds)
    _ask(url, rollout, "hold", body, token_file)


@click.command()
@click.argument("rollout")
@_reason
@_scope
@_name
@url_option
@token_option
def kill(rollout: str, reason: str, scope: str, name: str, url: str, token_file: Path | None) -> None:
    """Kill a rollout, or a part of it, at once; only a release ends it."""
    _ask(url, rollout, "kill", {"reason": reason, "scope": scope, "name": name}, token_file)


@click.command()
@click.argument("rollout")
@_reason
@_scope
@click.option("--break-glass", is_flag=True, help="Release a kill without a second person; it is loud.")
@_name
@url_option
@token_option
def release(
    rollout: str, reason: str, scope: str, break_glass: bool, name: str, url: str, token_file: Path | None
) -> None:
    """Release a held or killed rollout; of a kill a second person has to approve it.

    After the release of a hold the detector only kills; after that of a kill it is out for good.
    """
    body = {"reason": reason, "scope": scope, "name": name, "break_glass": break_glass}
    _ask(url, rollout, "release", body, token_file)


@click.command()
@click.argument("rollout")
@click.argument("command_id")
@_reason
@_name
@url_option
@token_option
def approve(rollout: str, command_id: str, reason: str, name: str, url: str, token_file: Path | None) -> None:
    """Approve the release COMMAND_ID of ROLLOUT that somebody else asked for (`cordon approvals` lists them)."""
    _ask(url, rollout, "approve", {"reason": reason, "command_id": command_id, "name": name}, token_file)


@click.command()
@click.argument("rollout")
@_reason
@click.option("--for", "seconds", type=Duration(), required=True, help="How long, such as 4h; at most mute_hours_max.")
@_name
@url_option
@token_option
def mute(rollout: str, reason: str, seconds: float, name: str, url: str, token_file: Path | None) -> None:
    """Have the detector's word move nothing for a while; a person's stops stay."""
    _ask(url, rollout, "mute", {"reason": reason, "name": name} | _end(seconds), token_file)


@click.command("dry-run")
@click.argument("rollout")
@_reason
@click.option("--for", "seconds", type=Duration(), help="How long; else until `cordon arm`.")
@_name
@url_option
@token_option
def dry_run(rollout: str, reason: str, seconds: float | None, name: str, url: str, token_file: Path | None) -> None:
    """Have the detector's word bind nobody: its events are signed and marked."""
    _ask(url, rollout, "dry-run", {"reason": reason, "name": name} | _end(seconds), token_file)


@click.command()
@click.argument("rollout")
@_reason
@_name
@url_option
@token_option
def arm(rollout: str, reason: str, name: str, url: str, token_file: Path | None) -> None:
    """Have the detector's word bind again, its latest one at once."""
    _ask(url, rollout, "arm", {"reason": reason, "name": name}, token_file)


@click.command()
@url_option
@token_option
def approvals(url: str, token_file: Path | None) -> None:
    """List the releases of a kill that wait for a second person."""
    answer = _send("GET", f"{url.rstrip('/')}/v1/approvals", None, token_of(token_file))
    if answer.status_code != 200:
        fail(_refusal(answer.status_code, _said(answer)))
    for request in msgspec.json.decode(answer.content, type=PendingReleases).pending:
        part = f" ({request.scope.text})" if not request.scope.whole else ""
        until = dt.datetime.fromtimestamp(request.expires_ms / 1000, dt.UTC)
        asked = f"{request.name} asked: {request.reason}; until {until:%H:%M:%SZ}"
        click.echo(one_line(f"{request.rollout} {request.command_id}{part}: {asked}"))


COMMANDS: tuple[click.Command, ...] = (hold, kill, release, approve, mute, dry_run, arm, approvals)


def _end(seconds: float | None) -> dict[str, Any]:
    return {} if seconds is None else {"for_seconds": int(seconds)}


def _ask(url: str, rollout: str, action: str, body: dict[str, Any], token_file: Path | None) -> None:
    address = f"{url.rstrip('/')}/v1/rollouts/{quote(rollout, safe='')}/{action}?wait=1"
    answer = _send("POST", address, body, token_of(token_file))
    said = _said(answer)
    result = said.get("result")
    if answer.status_code == 200:
        part = f" ({body['scope']})" if body.get("scope") else ""
        click.echo(
            f"{rollout}{part} is {said['state']} (event {said['number']}): {action} by a person, {body['reason']}"
        )
    elif result == CommandResult.PENDING:
        click.echo(
            f"{rollout} is not released yet: a second person has to agree within an hour, by\n"
            f"  cordon approve {rollout} {said['command_id']} --reason ..."
        )
        raise SystemExit(PENDING_CODE)
    elif answer.status_code == 202:
        fail(f"asked (command {said['command_id']}), but the switch has not answered in time: is signals running?")
    elif answer.status_code == 409 and result is not None:
        fail(f"nothing changed: {result}; the rollout is {said.get('state', 'unknown')}. {_doc(result)}")
    else:
        fail(_refusal(answer.status_code, said))


def _doc(result: str) -> str:
    return COMMAND_RESULT_DOCS.get(CommandResult(result), "") if result in set(CommandResult) else ""


def _refusal(status: int, said: dict[str, Any]) -> str:
    return f"refused ({status} {said.get('reason')}): {said.get('detail')}"


def _said(answer: httpx2.Response) -> dict[str, Any]:
    try:
        said: dict[str, Any] = answer.json()
    except json.JSONDecodeError as error:
        fail(f"no answer that can be read from {answer.url}: {error}. Is Cordon up there? --url names another")
    return said


def _send(method: str, url: str, body: dict[str, Any] | None, token: str | None) -> httpx2.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        return httpx2.request(method, url, json=body, headers=headers, timeout=HTTP_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        fail(f"no answer that can be read from {url}: {error}. Is Cordon up there? --url names another")
