"""`cordon patterns`: crash patterns that belong to no rollout, and which signatures are likely one bug.

Shows what the alerts job wrote into the store; with `--again` it judges the store's hours anew, writes nothing, and
says what that would have raised. The invariant: too little history is said, never shown as quiet.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.alerts import source
from deploy.cli.compat import Source
from deploy.cli.compat_table import WIDTH_PIPED, plain, plain_note
from deploy.cli.options import config_option, settings_of
from detectors.alerts.judge import AlertJudge
from detectors.alerts.wire import Alert, AlertsStatus
from detectors.clusters import Group, group_signatures
from detectors.outliers import ROWS_LEAST
from detectors.patterns import WARM_HOURS

HOURS_AGAIN_MAX: Final = 30 * 24


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """An alert as the store has it."""

    alert: str
    state: str
    pattern: str
    signatures: list[str]
    joined: str
    opened: str
    last: str
    crashes: int
    devices_most: int
    tenants_most: int
    log10_evidence: float
    log10_needed: float
    sentence: str


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """What judging the store's hours anew gives: the alerts as written last, and how the watch would stand."""

    alerts: list[Alert]
    status: AlertsStatus


class Patterns(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints.

    Attributes:
        hours: complete hours that the store has reports of; 48 are needed, and 200 hours of patterns after them.
        alerts: as the alerts job wrote them last, open ones first.
        groups: signatures of the last week that are likely one bug, and how each group came about.
        left_out: signatures that were not compared because there were too many.
        again: with `--again`.
    """

    hours: int
    alerts: list[Recorded]
    groups: list[Group]
    left_out: int
    again: Again | None


def _recorded(row: list[Any]) -> Recorded:
    alert, state, pattern, signatures, joined, _places, opened, last, crashes, devices, tenants, _expected, *rest = row
    return Recorded(
        alert=alert, state=state, pattern=pattern, signatures=list(signatures), joined=joined, opened=str(opened)[:16],
        last=str(last)[:16], crashes=int(crashes), devices_most=int(devices), tenants_most=int(tenants),
        log10_evidence=float(rest[0]), log10_needed=float(rest[1]), sentence=rest[-1],
    )  # fmt: skip


def judged_again(store: source.Rows, first: int, end: int) -> Again:
    """Judge the complete hours of a store from the first on, at most 30 days, as the alerts job does."""
    judge = AlertJudge(max(first, end - HOURS_AGAIN_MAX))
    latest: dict[str, Alert] = {}
    for begin in range(judge.next_hour, end, source.HOURS_AT_ONCE):
        until = min(end, begin + source.HOURS_AT_ONCE)
        rows = source.hours(store, begin, until)
        for hour in range(begin, until):
            judged = source.judge_hour(store, judge, hour, rows.get(hour, []))
            latest.update((alert.alert, alert) for alert in judged)
    return Again(alerts=list(latest.values()), status=judge.status())


def _table(title: str, alerts: list[tuple[str, ...]]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE)
    for name in ("state", "pattern", "since", "last"):
        table.add_column(name, no_wrap=name != "pattern")
    for name in ("crashes", "devices/h", "tenants", "evidence", "needed"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in alerts:
        table.add_row(*map(Text, row), style="bold red" if row[0] == "open" else "")
    return table


def _row(alert: Recorded) -> tuple[str, ...]:
    others = f" +{len(alert.signatures) - 1}" if len(alert.signatures) > 1 else ""
    return (
        alert.state, plain(alert.pattern) + others, alert.opened, alert.last, f"{alert.crashes:,}",
        f"{alert.devices_most:,}", f"{alert.tenants_most:,}", f"10^{alert.log10_evidence:.1f}",
        f"10^{alert.log10_needed:.1f}",
    )  # fmt: skip


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _again_row(alert: Alert) -> tuple[str, ...]:
    return (
        alert.state.value, plain(alert.pattern), _time(alert.opened_ms), _time(alert.last_ms), f"{alert.crashes:,}",
        f"{alert.devices_most:,}", f"{alert.tenants_most:,}", f"10^{alert.log10_evidence:.1f}",
        f"10^{alert.log10_needed:.1f}",
    )  # fmt: skip


def show(found: Patterns, limit: int, out: TextIO) -> None:
    """Print what was found for a person."""
    console = Console(file=out, width=None if out.isatty() else WIDTH_PIPED, highlight=False, markup=False)
    if found.alerts:
        console.print(
            _table("Crash patterns beyond the usual that belong to no rollout", list(map(_row, found.alerts)))
        )
        for alert in found.alerts[:limit]:
            console.print(Text(f"{alert.alert}: {plain_sentence(alert.sentence)}"))
    else:
        console.print("No crash pattern beyond the usual is on record.")
    if found.hours < WARM_HOURS:
        console.print(
            f"Not enough history to tell what is usual: {found.hours} of {WARM_HOURS} hours, then {ROWS_LEAST} hours "
            f"of patterns. Until then there are no alerts."
        )
    if found.again is not None:
        console.print(_table("Judged again", list(map(_again_row, found.again.alerts))))
        console.print(f"Judged again: {found.again.status.sentence}")
    if found.groups:
        console.print("Signatures of the last week that are likely one bug:")
    for group in found.groups[:limit]:
        names = ", ".join(plain(member.name) for member in group.members)
        console.print(Text(f"  {names} ({group.devices:,} devices): {plain_note(group.why)}"))
    if len(found.groups) > limit:
        console.print(f"  {len(found.groups) - limit:,} more: --limit or --json shows them")
    console.print("For people: no alert holds or kills a rollout.")


def plain_sentence(text: str) -> str:
    """Return an alert's sentence as it may be shown: printable, and cut at 1,000 characters."""
    return "".join(character if character.isprintable() else "?" for character in text)[:1000]


@click.command()
@click.option("--again", is_flag=True, help="Judge the store's last 30 days anew, and write nothing.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Alerts and groups to show.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--lane", default=None, help="Lane to read; the one in the settings where not given.")
@config_option
def patterns(again: bool, limit: int, as_json: bool, lane: str | None, config: Path | None) -> None:
    """Show crash patterns that belong to no rollout, and which signatures are likely one bug."""
    store = Source(settings_of(config), lane)
    first, end = source.first_hour(store), source.complete_until(store)
    hours = 0 if first is None else max(0, end - first)
    groups = group_signatures(source.signatures(store, end + 1)) if first is not None else None
    found = Patterns(
        hours=hours,
        alerts=[_recorded(row) for row in store.rows("alerts_latest", limit=limit)],
        groups=[] if groups is None else groups.groups,
        left_out=0 if groups is None else groups.left_out,
        again=judged_again(store, first, end) if again and first is not None else None,
    )
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    show(found, limit, sys.stdout)
