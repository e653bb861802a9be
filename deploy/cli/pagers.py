"""The pagers on the command line: list, mute, unmute, acknowledge, resolve, redeliver.

Thin over the streams listener's HTTP; registered by `deploy.cli.main`. Invariant: an exit code of 0 means that what was
asked was done.
"""

import datetime as dt
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click
import httpx2

from deploy.cli.streams import HTTP_SECONDS, fail, token_of, token_option, url_option
from signals.pagers.orders import RESULT_DOCS
from signals.pagers.words import OrderAction

_PATH: Final = "/v1/pagers"

_reason = click.option("--reason", default="", help="Why; for the trail, it goes into no page.")


@click.group()
def pagers() -> None:
    """See who is paged for what, and mute, acknowledge, resolve or redeliver."""


@pagers.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@url_option
@token_option
def list_(as_json: bool, url: str, token_file: Path | None) -> None:
    """List incidents: who was told over which route, what waits, what was given up, and what is muted."""
    found = _ask("GET", url, "", token_file, None)
    if as_json:
        click.echo(json.dumps(found))
        return
    for one in found["incidents"]:
        known = ", acknowledged" if one["acknowledged"] else ""
        click.echo(f"{one['rollout']} {one['owner']} ({one['role']}): {one['level']}{known}  {one['headline']}")
        for route in one["routes"]:
            words = ["open" if route["open"] else "closed"]
            words += [f"{route['waiting']} waiting"] if route["waiting"] else []
            words += [f"{route['undelivered']} UNDELIVERED: {route['why']}"] if route["undelivered"] else []
            words += [f"instead of {route['instead_of']}"] if route["instead_of"] else []
            click.echo(f"    {route['route']}: {', '.join(words)}")
    for mute in found["mutes"]:
        until = dt.datetime.fromtimestamp(mute["until_ms"] / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
        click.echo(
            f"muted until {until}: {mute.get('rollout') or mute.get('vendor')}, by {mute['name']}: {mute['reason']}"
        )
    if not found["incidents"]:
        click.echo("nobody was told of anything")


@pagers.command()
@click.option("--rollout", default="", help="The rollout whose incidents are muted.")
@click.option("--vendor", default="", help="The vendor whose incidents are muted, by the registry's name.")
@click.option("--hours", type=click.FloatRange(0.01, 168), required=True, help="For how long.")
@click.option("--kills", is_flag=True, help="Kills are not told either.")
@_reason
@url_option
@token_option
def mute(rollout: str, vendor: str, hours: float, kills: bool, reason: str, url: str, token_file: Path | None) -> None:
    """Tell nobody of a rollout's or a vendor's incidents for a while; what stands at its end is told then."""
    until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)
    body = {"rollout": rollout, "vendor": vendor, "until_ms": int(until.timestamp() * 1000), "kills": kills}
    _done(_ask("POST", url, "/mute", token_file, {**body, "reason": reason}))


@pagers.command()
@click.option("--rollout", default="", help="The rollout whose incidents are muted.")
@click.option("--vendor", default="", help="The vendor whose incidents are muted.")
@_reason
@url_option
@token_option
def unmute(rollout: str, vendor: str, reason: str, url: str, token_file: Path | None) -> None:
    """End a mute now."""
    body = {"rollout": rollout, "vendor": vendor, "until_ms": 0, "reason": reason}
    _done(_ask("POST", url, "/mute", token_file, body))


def _about(action: OrderAction, doc: str) -> click.Command:
    @click.command(action.value, help=doc)
    @click.argument("rollout")
    @_reason
    @url_option
    @token_option
    def run(rollout: str, reason: str, url: str, token_file: Path | None) -> None:
        path = f"/{quote(rollout, safe='')}/{action.value}"
        _done(_ask("POST", url, path, token_file, {"reason": reason}))

    return run


pagers.add_command(_about(OrderAction.ACKNOWLEDGE, "Tell channels that know it that a ROLLOUT's page is in hand."))
pagers.add_command(_about(OrderAction.RESOLVE, "Call a ROLLOUT's incidents over although its switch stands."))
pagers.add_command(_about(OrderAction.REDELIVER, "Try again what was given up for a ROLLOUT."))


def _ask(method: str, url: str, path: str, token_file: Path | None, body: dict[str, Any] | None) -> dict[str, Any]:
    token = token_of(token_file)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    try:
        with httpx2.Client(timeout=HTTP_SECONDS, trust_env=False) as http:
            answer = http.request(method, f"{url.rstrip('/')}{_PATH}{path}", json=body, headers=headers)
    except httpx2.HTTPError as error:
        fail(f"no answer from {url}: {error}")
    if not answer.is_success:
        fail(f"{answer.status_code}: {answer.text[:300]}")
    found: dict[str, Any] = answer.json()
    return found


def _done(said: dict[str, Any]) -> None:
    result = said.get("result")
    if result is None:
        fail("asked, but the pagers have not answered: are routes_file set and the pagers up (cordon_pagers_up)?")
    click.echo(f"{result}: {RESULT_DOCS.get(result, '')}")
    if result != "applied":
        raise SystemExit(1)
