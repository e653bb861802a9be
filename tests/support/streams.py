"""The streams listener under granian in a thread of its own, with the signals stage beside it."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx2
from granian.constants import Interfaces
from granian.server.embed import Server

from ingest.sight import Sight
from ingest.topics import Topics
from signals.delivery.app import described, streams_app
from signals.delivery.service import StreamService
from signals.killswitch.lease import LeaseTerms
from support.openapi import checking
from support.switches import KEYS, SwitchRig

OPERATOR, READER, REPORTER = "operator-token", "reader-token", "reporter-token"
APPROVER, VIEWER = "approver-token", "viewer-token"
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Person:
    """A principal as the gateway's token book gives it."""

    name: str
    roles: frozenset[str]
    tenants: frozenset[str] = frozenset({"*"})
    vendors: frozenset[str] = frozenset()


PEOPLE = {
    OPERATOR: Person("ops-1", frozenset({"operator"})),
    APPROVER: Person("lead-1", frozenset({"approver"})),
    VIEWER: Person("eyes-1", frozenset({"viewer"})),
    READER: Person("rollouts-1", frozenset({"rollout"})),
    REPORTER: Person("fleet-1", frozenset({"report"})),
}


_check_answer = checking(described())


def authenticate(header: str | None) -> Person | None:
    """Return who sent the header, as `TokenBook.authenticate` does."""
    return PEOPLE.get((header or "").removeprefix("Bearer "))


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class StreamRig(SwitchRig):
    """A log, a stage whose Owner runs in a thread, and the listener in another."""

    def __init__(
        self,
        topics: Topics | None = None,
        *,
        queue_max: int = 256,
        subscribers_max: int = 4096,
        heartbeat_seconds: float = 0.2,
        terms: LeaseTerms | None = None,
    ) -> None:
        super().__init__(topics)
        self.declare()
        self.service = StreamService(
            self.log,
            self.topics,
            KEYS,
            self.metrics,
            subscribers_max=subscribers_max,
            queue_max=queue_max,
            heartbeat_seconds=heartbeat_seconds,
        )
        self.sight_now = Sight(seeing=True)
        self.app = streams_app(self.service, authenticate, self.clock, self, terms)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.loop = asyncio.new_event_loop()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._serve), threading.Thread(target=self._own)]

    def sight(self) -> Sight:
        """Return what a test has put there."""
        return self.sight_now

    def http(self, token: str = OPERATOR) -> httpx2.Client:
        """Return a client with that token, which holds every answer to the listener's OpenAPI document."""
        return httpx2.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {token}"},
            timeout=10,
            # It is plain HTTP: loading certificates would take longer than asking.
            verify=False,
            event_hooks={"response": [_check_answer]},
        )

    def on_loop(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Run a coroutine on the listener's loop and return its result."""

        async def run() -> _Result:
            return await call()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def close_streams(self) -> None:
        """End the streams as SIGTERM does."""
        self.loop.call_soon_threadsafe(self.service.close_streams)

    def begin(self) -> None:
        """Start both threads and wait until the listener answers."""
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                if httpx2.get(f"{self.url}/healthz").status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.02)
        raise AssertionError("the streams listener did not answer")

    def end(self) -> None:
        """Stop both threads."""
        self.close_streams()
        self._ending.set()
        self.loop.call_soon_threadsafe(self._server.stop)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self.loop.close()

    def _own(self) -> None:
        while not self._ending.is_set():
            self.owner.step(0.05)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self._server = Server(
            self.app,
            address="127.0.0.1",
            port=self.port,
            interface=Interfaces.ASGI,
            log_enabled=False,
            backpressure=8192,
            backlog=4096,
        )
        self.loop.run_until_complete(self._server.serve())


@contextmanager
def streaming(
    topics: Topics | None = None,
    *,
    queue_max: int = 256,
    subscribers_max: int = 4096,
    heartbeat_seconds: float = 0.2,
    terms: LeaseTerms | None = None,
) -> Iterator[StreamRig]:
    """Run a rig for the length of a block."""
    rig = StreamRig(
        topics,
        queue_max=queue_max,
        subscribers_max=subscribers_max,
        heartbeat_seconds=heartbeat_seconds,
        terms=terms,
    )
    rig.begin()
    try:
        yield rig
    finally:
        rig.end()


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until the condition holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold in time"
        time.sleep(0.005)
