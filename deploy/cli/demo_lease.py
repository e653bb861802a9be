"""`cordon demo-lease`: Cordon is killed, and every client goes to hold when its lease ends; started again, they go on.

A real Cordon in a process of its own, four kinds of clients, and SIGKILL. Every time printed was measured in this run.
Ends with 0 if all went on, all were on hold by the lease's end, and all went on again.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from deploy.leases.clients import AsyncClient, Client, ShellClient, SyncClient, WatchClient
from deploy.leases.cordon import CordonChild, DemoError

WAIT_SECONDS_MAX = 90.0
# How long after the lease's end a client may be seen to hold: a command has to be started, and machines are busy.
LATE_SECONDS_MAX = 1.0


@click.command("demo-lease")
@click.option(
    "--lease-seconds", type=click.IntRange(3, 60), default=6, show_default=True, help="How long a lease lasts."
)
def demo_lease(lease_seconds: int) -> None:
    """Kill Cordon and show that every client is on hold when its lease ends."""
    with tempfile.TemporaryDirectory(prefix="cordon-lease-") as folder:
        cordon = CordonChild(Path(folder) / "data", lease_seconds)
        clients: list[Client] = []
        try:
            good = _run(cordon, clients, Path(folder), lease_seconds)
        except DemoError as error:
            raise click.ClickException(str(error)) from error
        finally:
            for client in clients:
                client.stop()
            cordon.kill()
    sys.exit(0 if good else 1)


def _run(cordon: CordonChild, clients: list[Client], folder: Path, lease_seconds: int) -> bool:
    begun = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - begun:5.1f} s  {text}")

    cordon.start()
    rollout = cordon.declare()
    say(f"Cordon runs, rollout {rollout} is declared; a lease lasts {lease_seconds} s, renewed at a third of it")
    clients += [SyncClient(cordon, rollout), AsyncClient(cordon, rollout), WatchClient(cordon, rollout, folder)]
    if shutil.which("curl") is not None:
        clients.append(ShellClient(cordon, rollout, folder))
    for client in clients:
        client.start()
    _wait(clients, "proceed", 0)
    say(f"all {len(clients)} clients say proceed")
    # Long enough that every client goes by a lease that was renewed.
    time.sleep(lease_seconds)
    killed_ms = _now_ms()
    cordon.kill()
    end_ms = _lease_end(clients, killed_ms)
    say(f"Cordon is killed (SIGKILL); the last lease ends in {(end_ms - _now_ms()) / 1000:.1f} s")
    held = _wait(clients, "hold", killed_ms)
    say("all clients are on hold")
    restarted_ms = _now_ms()
    cordon.start()
    say("Cordon is started again")
    again = _wait(clients, "proceed", restarted_ms)
    say("all clients say proceed again")
    Console(width=110).print(_table(clients, killed_ms, end_ms, held, restarted_ms, again))
    late = max((at_ms - end_ms) / 1000 for at_ms in held)
    good = late <= LATE_SECONDS_MAX
    click.echo(
        f"all {len(clients)} clients were on hold by the lease's end"
        if good
        else f"HELD TOO LATE: {late:.2f} s after the lease's end"
    )
    return good


def _wait(clients: Sequence[Client], decision: str, since_ms: int) -> list[int]:
    """Return when each client's decision became this one for good, after `since_ms`."""
    until = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        found = [_became(client, decision, since_ms) for client in clients]
        known = [at_ms for at_ms in found if at_ms is not None]
        if len(known) == len(clients):
            return known
        if time.monotonic() > until:
            late = [client.name for client, at_ms in zip(clients, found, strict=True) if at_ms is None]
            raise DemoError(f"after {WAIT_SECONDS_MAX:g} s these do not say {decision}: {', '.join(late)}")
        time.sleep(0.02)


def _became(client: Client, decision: str, since_ms: int) -> int | None:
    at_ms = None
    for note in client.notes():
        if note.decision != decision:
            at_ms = None
        elif at_ms is None:
            at_ms = note.at_ms
    return at_ms if at_ms is not None and at_ms >= since_ms else None


def _lease_end(clients: Sequence[Client], killed_ms: int) -> int:
    ends = [note.until_ms for client in clients for note in client.notes() if note.until_ms]
    if not ends or max(ends) < killed_ms:
        raise DemoError("no client knew of a lease that was valid when Cordon was killed")
    return max(ends)


def _table(
    clients: Sequence[Client], killed_ms: int, end_ms: int, held: list[int], restarted_ms: int, again: list[int]
) -> Table:
    table = Table(title="Cordon killed: who held when")
    table.add_column("client")
    for title in ("on hold after the kill", "against the lease's end", "proceeds after the restart"):
        table.add_column(title, justify="right")
    for client, held_ms, again_ms in zip(clients, held, again, strict=True):
        spans = (held_ms - killed_ms, held_ms - end_ms, again_ms - restarted_ms)
        table.add_row(client.name, *(f"{span / 1000:+.2f} s" for span in spans))
    return table


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
