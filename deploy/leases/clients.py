"""Clients of four kinds that only note when their decision changes: what a rollout system would go by.

The synchronous and the asynchronous client, `cordon watch --exec`, and a shell loop over the verdict endpoint. The
invariant: each notes what it would do at a moment by its own means, none is told by the demonstration.
"""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.leases.cordon import CordonChild
from signals.client import AsyncKillSwitchClient, KillSwitchClient, PublicKeys
from signals.killswitch.effective import Effective

_LOOK_SECONDS = 0.01
_JOIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Noted:
    """What a client decided from a moment on, by the wall clock; `until_ms` is its lease's end where it knows it."""

    at_ms: int
    decision: str
    reason: str
    until_ms: int = 0


class Client(Protocol):
    """One client of the demonstration."""

    name: str

    def start(self) -> None:
        """Begin to follow."""
        ...

    def notes(self) -> list[Noted]:
        """Return every change so far, oldest first."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class _InThread:
    """What the two Python clients share: a thread that looks at the decision a hundred times a second."""

    name = ""

    def __init__(self, cordon: CordonChild, rollout: str) -> None:
        self._cordon, self._rollout = cordon, rollout
        self._keys = PublicKeys.parse(cordon.key_file.read_bytes())
        self._notes: list[Noted] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def notes(self) -> list[Noted]:
        """Return every change so far, oldest first."""
        return list(self._notes)

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        raise NotImplementedError

    def _note(self, said: Effective) -> None:
        noted = Noted(time.time_ns() // 1_000_000, said.decision.value, said.reason.value, said.until_ms)
        last = self._notes[-1] if self._notes else None
        if last is None or (last.decision, last.reason, last.until_ms) != (
            noted.decision,
            noted.reason,
            noted.until_ms,
        ):
            self._notes.append(noted)


class SyncClient(_InThread):
    """`KillSwitchClient`."""

    name = "Python, synchronous"

    def _run(self) -> None:
        with KillSwitchClient(self._cordon.url, self._keys, token=self._cordon.token, rollout=self._rollout) as client:
            client.follow()
            while not self._stop.wait(_LOOK_SECONDS):
                self._note(client.decision(self._rollout))


class AsyncClient(_InThread):
    """`AsyncKillSwitchClient`."""

    name = "Python, asynchronous"

    def _run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        async with AsyncKillSwitchClient(
            self._cordon.url, self._keys, token=self._cordon.token, rollout=self._rollout
        ) as client:
            await client.follow()
            while not self._stop.is_set():
                self._note(client.decision(self._rollout))
                await asyncio.sleep(_LOOK_SECONDS)


class _InProcess:
    """What the two children share: they write a line to a file at each change."""

    name = ""

    def __init__(self, cordon: CordonChild, rollout: str, folder: Path) -> None:
        self._cordon, self._rollout, self._file = cordon, rollout, folder / f"{type(self).__name__}.txt"
        self._file.touch()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to follow."""
        environment = self._cordon.environment | {"CORDON_TOKEN": self._cordon.token, "NOTES": str(self._file)}
        self._process = subprocess.Popen(  # noqa: S603  # our own command line
            self._command(),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def notes(self) -> list[Noted]:
        """Return every change so far, oldest first."""
        lines = [line.split() for line in self._file.read_text().splitlines()]
        return [Noted(int(words[0]), words[1], words[2]) for words in lines if len(words) == 3]

    def stop(self) -> None:
        """End it, and what it started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _command(self) -> list[str]:
        raise NotImplementedError


class WatchClient(_InProcess):
    """`cordon watch --exec`."""

    name = "cordon watch --exec"

    def _command(self) -> list[str]:
        note = 'echo "$(date +%s%3N) $CORDON_DECISION $CORDON_REASON" >> "$NOTES"'
        return [
            *(sys.executable, "-m", "deploy.cli", "watch", "--url", self._cordon.url),
            *("--key", str(self._cordon.key_file), "--rollout", self._rollout),
            *("--exec", shlex.join(["sh", "-c", note])),
        ]


class ShellClient(_InProcess):
    """A shell loop over the verdict endpoint: whatever is not a plain `proceed` is a hold."""

    name = "shell, polling the verdict"

    def _command(self) -> list[str]:
        url = f"{self._cordon.url}/v1/rollouts/{self._rollout}/verdict"
        script = f"""
            before=
            while :; do
                now=hold
                curl --silent --fail --max-time 2 --header "authorization: Bearer $CORDON_TOKEN" {url} |
                    grep --quiet '"proceed":true' && now=proceed
                [ "$now" = "$before" ] || echo "$(date +%s%3N) $now verdict" >> "$NOTES"
                before=$now
                sleep 0.2
            done
        """
        return ["sh", "-c", script]
