"""`cordon watch`: follow the kill switch, print what comes, and run a command on it.

Thin over `signals.client`. Invariants: nothing is printed or acted on that was not verified; and with --exec a lease
that runs out is acted on like an event, so that a dead Cordon stops rollouts too.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from deploy.cli.exec_hook import CommandLineError, ExecHook
from deploy.cli.streams import event_line, fail, key_option, keys_of, token_of, token_option, url_option
from signals.client import ClientError, KillSwitchClient, SwitchError
from signals.client.turns import Turn, Turns

TICK_SECONDS = 0.1


@click.command()
@url_option
@token_option
@key_option
@click.option("--rollout", help="Only this rollout's events.")
@click.option("--lane", default="live", show_default=True, help="The lane to believe.")
@click.option("--from-start", is_flag=True, help="Begin with the first event ever.")
@click.option(
    "--drills", type=click.Choice(["none", "include", "only"]), default="none", show_default=True,
    help="Whether events of drills are shown.",
)  # fmt: skip
@click.option("--state", type=click.Path(path_type=Path), help="File that keeps what is known over a restart.")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@click.option("--json", "as_json", is_flag=True, help="Print each verified event's CloudEvent as a line of JSON.")
@click.option(
    "--exec", "command",
    help="Run this on each event, and when a lease runs out or comes back. No shell reads it: name a script.",
)  # fmt: skip
@click.option(
    "--exec-timeout", type=click.FloatRange(0.1, 3600), default=30.0, show_default=True,
    help="Seconds one run may take.",
)  # fmt: skip
def watch(
    url: str,
    token_file: Path | None,
    key_file: Path | None,
    rollout: str | None,
    lane: str,
    from_start: bool,
    drills: str,
    state: Path | None,
    count: int | None,
    as_json: bool,
    command: str | None,
    exec_timeout: float,
) -> None:
    """Print kill-switch events as they come, each verified; ends with 1 at the first that can't be believed.

    With --exec it goes on: what can't be believed is a hold. The command gets CORDON_ROLLOUT, CORDON_DECISION
    (proceed, hold or kill: what to do now), CORDON_REASON, CORDON_SENTENCE, CORDON_CAUSE, CORDON_STATE, CORDON_NUMBER,
    CORDON_SCOPE, CORDON_DRY_RUN and CORDON_UNTIL_MS, and the signed CloudEvent as JSON on its standard input.
    """
    wish: dict[str, Any] = {
        "token": token_of(token_file), "rollout": rollout, "lane": lane, "from_start": from_start, "drills": drills,
        "state": state, "key_file": key_file, "on_connect": lambda: click.echo(f"watching {url}", err=True),
    }  # fmt: skip
    keys = keys_of(url, key_file)
    try:
        if command is None:
            with KillSwitchClient(url, keys, leases=False, **wish) as client:
                _print(client, count, as_json)
        else:
            hook = ExecHook(command, exec_timeout, lambda line: click.echo(line, err=True))
            Executing(hook, count, as_json).run(lambda may_save: KillSwitchClient(url, keys, may_save=may_save, **wish))
    except SwitchError as error:
        fail(f"NOT BELIEVED: {error}")
    except (ClientError, CommandLineError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        return


def _print(client: KillSwitchClient, count: int | None, as_json: bool) -> None:
    for seen, verified in enumerate(client.verified(), 1):
        click.echo(verified.payload.decode() if as_json else event_line(verified.switch))
        if seen == count:
            return


class Executing:
    """Follows the stream, and has the command run for each turn."""

    def __init__(self, hook: ExecHook, count: int | None, as_json: bool) -> None:
        """Take what runs the command, when to end, and how to print."""
        self._hook, self._count, self._as_json = hook, count, as_json
        self._handing = False

    def run(self, connect: Callable[[Callable[[], bool]], KillSwitchClient]) -> None:
        """Run until so many events were acted on, or for ever.

        Args:
            connect: makes the client, given what says whether its state may be written.

        Raises:
            ClientError: the stream can't be had.
        """
        turns: list[Turns] = []
        # In this order: an event is never in none of the three.
        client = connect(lambda: turns[0].empty and not self._handing and self._hook.idle)
        turns.append(Turns(client.decision, time.monotonic))
        with client:
            for rollout in client.rollouts():
                turns[0].follow(rollout)
            client.follow(turns[0].take)
            try:
                self._loop(client, turns[0])
            finally:
                self._hook.close()

    def _loop(self, client: KillSwitchClient, turns: Turns) -> None:
        seen = 0
        while True:
            for rollout in client.rollouts():
                turns.follow(rollout)
            self._handing = True
            for turn in turns.due():
                click.echo(self._line(turn))
                self._hook.submit(turn)
                seen += turn.event is not None
                if seen == self._count:
                    return
            self._handing = False
            client.wait(TICK_SECONDS)

    def _line(self, turn: Turn) -> str:
        if turn.event is not None:
            return turn.event.payload.decode() if self._as_json else event_line(turn.event.switch)
        if self._as_json:
            return turn.lease.payload.decode() if turn.lease is not None else "{}"
        return f"{turn.said.decision.value.upper():7} {turn.rollout} {turn.said.reason.value}: {turn.said.sentence}"
