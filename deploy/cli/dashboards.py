"""`cordon dashboards`: bring a Grafana to Cordon's boards, or show what would change; preview a panel without one.

Thin over `dashboards.grafana.provision`. Invariant: `diff` changes nothing, and `apply` twice changes nothing the
second time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from dashboards.grafana.provision.client import HttpGrafana
from dashboards.grafana.provision.plan import Action, Change, GrafanaError, apply, plan
from dashboards.grafana.provision.resources import (
    ClickHouseSource,
    Resource,
    SourceError,
    contact_point,
    prometheus_source,
    wanted,
)
from deploy.cli.dashboards_preview import preview_


@click.group()
def dashboards() -> None:
    """Bring a Grafana to Cordon's boards, data sources and alert rules; or do without one."""


dashboards.add_command(preview_)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed((
        click.option("--grafana", required=True, help="Its URL, such as http://grafana:3000."),
        click.option(
            "--token-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True,
            help="Holds the token of a service account.",
        ),
        click.option("--clickhouse", help="Where Grafana finds the store, such as native://clickhouse:9000."),
        click.option("--database", default="cordon", show_default=True, help="The store's database."),
        click.option("--clickhouse-user", default="default", show_default=True),
        click.option(
            "--clickhouse-password-file", type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="Holds that user's password.",
        ),
        click.option("--prometheus", help="Where Grafana finds the Prometheus that scrapes Cordon."),
        click.option("--contact", help="Where alerts go: a URL for a webhook, or an e-mail address."),
    )):  # fmt: skip
        command = option(command)
    return command


@dashboards.command("diff")
@_options
def diff(**given: Any) -> None:
    """Show what `apply` would change. Exits 0 if nothing, 1 if something, 2 if Grafana can't be asked."""
    changes = _planned(**given)[1]
    for change in changes:
        for line in change.lines:
            click.echo(line)
    _summary(changes, "to ")
    if any(change.action is not Action.NOTHING for change in changes):
        raise SystemExit(1)


@dashboards.command("apply")
@_options
def apply_(**given: Any) -> None:
    """Create or update folder, data sources, boards, contact point and alert rules; delete nothing."""
    grafana, changes = _planned(**given)
    try:
        apply(changes, grafana)
    except GrafanaError as error:
        _fail(str(error))
    for change in changes:
        click.echo(f"{change.action:9}  {change.resource.kind} {change.resource.uid}")
    _summary(changes, "")


def _planned(
    grafana: str, token_file: Path, clickhouse: str | None, database: str, clickhouse_user: str,
    clickhouse_password_file: Path | None, prometheus: str | None, contact: str | None,
) -> tuple[HttpGrafana, list[Change]]:  # fmt: skip
    try:
        sources: list[Resource] = []
        if clickhouse is not None:
            password = clickhouse_password_file.read_text().strip() if clickhouse_password_file else ""
            sources.append(ClickHouseSource(clickhouse, database, clickhouse_user, password).resource())
        if prometheus is not None:
            sources.append(prometheus_source(prometheus))
        side = HttpGrafana(grafana, token_file.read_text().strip())
        side.check()
        return side, plan(wanted(sources, contact_point(contact) if contact else None), side)
    except (SourceError, GrafanaError, OSError) as error:
        _fail(str(error))


def _summary(changes: list[Change], to: str) -> None:
    counts = {action: sum(change.action is action for change in changes) for action in Action}
    changed = f"{counts[Action.CREATE]} {to}create, {counts[Action.UPDATE]} {to}update"
    click.echo(f"{changed}, {counts[Action.NOTHING]} unchanged", err=True)


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    raise SystemExit(2)
