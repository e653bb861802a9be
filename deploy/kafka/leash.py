"""A child process that can't outlive its parent, not even one that was SIGKILLed.

PR_SET_PDEATHSIG would fire when the *thread* that started the child ends, and needs code between fork and exec. So a
shell waits at the other end of a pipe that only the parent holds: when the parent is gone, the pipe ends, and it kills.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path


class LeashedProcess:
    """One process in a session of its own, with its output in a file, killed when its parent dies.

    Attributes:
        pid: of the process.
    """

    def __init__(self, command: Sequence[str], output: Path) -> None:
        """Start `command`, appending what it says to `output`."""
        with output.open("ab") as sink:
            # A session of its own: Ctrl-C at a terminal is for the parent, who stops its children in its own order.
            self._process = subprocess.Popen(  # noqa: S603  # the caller's own command line
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
            )
        self.pid = self._process.pid
        self._watcher = subprocess.Popen(  # noqa: S603  # a constant
            ["/bin/sh", "-c", 'read -r _; kill -9 "$0"', str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def running(self) -> bool:
        """Return whether the process has not ended."""
        if not self._alive():
            return False
        # Without reaping it: its number must not be given to another process while the watcher may kill it.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has been reaped."""
        if self._alive():
            self._process.send_signal(number)

    def end(self, timeout_seconds: float) -> None:
        """Ask the process to end, and kill it when it has not within the time."""
        if not self._alive():
            return
        # A stopped process would not hear the request.
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        self._unleash()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """Kill the process and return when it is gone."""
        if self._alive():
            self._process.kill()
            self._unleash()
            self._process.wait()

    def _alive(self) -> bool:
        return self._process.returncode is None

    def _unleash(self) -> None:
        self._watcher.kill()
        self._watcher.wait()
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()
