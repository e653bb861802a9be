"""Runs a command for each turn of `cordon watch --exec`: in order per rollout, side by side between rollouts.

Invariants: at most `WORKERS` commands run at once, each is ended with its children when its time is out, and what waits
is bounded: whoever hands over more waits.
"""

import os
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from signals.client.turns import Turn

WORKERS = 8
WAITING_MAX = 1000
_OUTPUT_CHARACTERS = 300


class CommandLineError(Exception):
    """What is to be run can't be read as a command line."""


class ExecHook:
    """Runs one command line for many turns."""

    def __init__(self, command: str, timeout_seconds: float, report: Callable[[str], None]) -> None:
        """Prepare; nothing runs before `submit`.

        Args:
            command: program and arguments as a shell would split them; no shell is started.
            timeout_seconds: how long one run may take.
            report: gets a line for people on every run that failed; called from any thread.

        Raises:
            CommandLineError: it is empty or has an open quote.
        """
        try:
            self._argv = shlex.split(command)
        except ValueError as error:
            raise CommandLineError(f"{command!r} is no command line: {error}") from error
        if not self._argv:
            raise CommandLineError("--exec needs a command")
        self._timeout_seconds, self._report = timeout_seconds, report
        self._waiting: dict[str, deque[Turn]] = {}
        self._count = 0
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="watch-exec")

    @property
    def idle(self) -> bool:
        """Whether every command has ended."""
        return self._count == 0

    def submit(self, turn: Turn) -> None:
        """Have the command run for a turn, after those of its rollout before it."""
        with self._changed:
            self._changed.wait_for(lambda: self._count < WAITING_MAX)
            self._count += 1
            queue = self._waiting.get(turn.rollout)
            if queue is not None:
                queue.append(turn)
                return
            self._waiting[turn.rollout] = deque([turn])
        self._pool.submit(self._work, turn.rollout)

    def close(self) -> None:
        """Return once every command has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0)
        self._pool.shutdown()

    def _work(self, rollout: str) -> None:
        while True:
            with self._changed:
                queue = self._waiting[rollout]
                if not queue:
                    del self._waiting[rollout]
                    return
                turn = queue.popleft()
            try:
                self._run(turn)
            finally:
                with self._changed:
                    self._count -= 1
                    self._changed.notify_all()

    def _run(self, turn: Turn) -> None:
        try:
            process = subprocess.Popen(  # noqa: S603  # what the caller asked to have run
                self._argv,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | environment(turn),
                start_new_session=True,
            )
        except OSError as error:
            self._report(f"{self._argv[0]} can't be run: {error.strerror}")
            return
        try:
            _, said = process.communicate(_document(turn), self._timeout_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            self._report(
                f"{self._argv[0]} took longer than {self._timeout_seconds:g} s for {_name(turn)}, and was ended"
            )
            return
        if process.returncode:
            text = said.decode(errors="replace").strip()[-_OUTPUT_CHARACTERS:]
            self._report(f"{self._argv[0]} ended with {process.returncode} for {_name(turn)}: {text}")


def environment(turn: Turn) -> Mapping[str, str]:
    """Return what the command is told in its environment; the whole event or lease comes on its standard input."""
    found = {
        "CORDON_ROLLOUT": turn.rollout,
        "CORDON_DECISION": turn.said.decision.value,
        "CORDON_REASON": turn.said.reason.value,
        "CORDON_SENTENCE": turn.said.sentence,
        "CORDON_UNTIL_MS": str(turn.said.until_ms),
        "CORDON_CAUSE": "lease",
        "CORDON_STATE": "",
        "CORDON_NUMBER": "",
        "CORDON_SCOPE": "",
        "CORDON_DRY_RUN": "",
    }
    if turn.event is None:
        return found
    switch = turn.event.switch
    return found | {
        "CORDON_CAUSE": switch.cause,
        "CORDON_STATE": switch.state.value,
        "CORDON_NUMBER": str(switch.number),
        "CORDON_SCOPE": switch.scope.text,
        "CORDON_DRY_RUN": "1" if switch.dry_run else "",
        "CORDON_SENTENCE": switch.sentence,
    }


def _document(turn: Turn) -> bytes:
    if turn.event is not None:
        return turn.event.payload
    return turn.lease.payload if turn.lease is not None else b"{}"


def _name(turn: Turn) -> str:
    return turn.event.event.id if turn.event is not None else f"the lease of {turn.rollout}"
