"""Several granian listeners in one event loop, each bound before it says it is ready.

Reports and streams have separate listeners: 140 open streams on one listener starved ingest in a trial. Backpressure is
set high because granian counts an open stream as a request in progress. Applications are started and stopped by the
composition root, so their lifespans are not run here.
"""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

from granian.constants import Interfaces
from granian.server.embed import Server

BACKPRESSURE = 8192
READY_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 10.0


class ListenError(Exception):
    """A listener could not be opened; the message says what to do."""


@dataclass(slots=True)
class Listener:
    """One application on one port."""

    name: str
    app: Any
    host: str
    port: int
    server: Server | None = None
    task: "asyncio.Task[None] | None" = None

    @property
    def url(self) -> str:
        """The listener's base URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Open the port and return once it answers.

        Raises:
            ListenError: the port is taken or the listener did not come up.
        """
        self.port = _usable_port(self.name, self.host, self.port)
        self.server = Server(
            self.app,
            address=self.host,
            port=self.port,
            interface=Interfaces.ASGINL,
            websockets=False,
            backlog=4096,
            backpressure=BACKPRESSURE,
            log_enabled=False,
        )
        self.task = asyncio.create_task(self.server.serve(), name=f"listener-{self.name}")
        deadline = asyncio.get_running_loop().time() + READY_SECONDS_MAX
        while not await _answers(self.host, self.port):
            if self.task.done() or asyncio.get_running_loop().time() > deadline:
                raise ListenError(f"the {self.name} listener did not come up on {self.url}; see the log above")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Close the port and wait for requests under way, for a bounded time."""
        if self.server is None or self.task is None:
            return
        self.server.stop()  # type: ignore[no-untyped-call]  # granian leaves it unannotated
        try:
            await asyncio.wait_for(asyncio.shield(self.task), STOP_SECONDS_MAX)
        except TimeoutError:
            self.task.cancel()


def _usable_port(name: str, host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ListenError(
                f"cannot listen on {host}:{port} for {name}: {error.strerror}. Is another Cordon running? "
                f"Set {name}_port to another port, or 0 for any free one"
            ) from error
        return int(probe.getsockname()[1])


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
