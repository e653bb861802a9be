"""Webhooks as a process runs them, on a log in memory, with a receiver on a real socket."""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from aiohttp import web

from ingest.clock import WallClock
from ingest.log.interface import Entry, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from signals.client.webhooks import verify
from signals.delivery.webhooks.deliverer import DeliveryParts
from signals.delivery.webhooks.desk import Wanted
from signals.delivery.webhooks.service import WebhookService
from signals.delivery.webhooks.targets import TargetPolicy, parse_networks
from support.switches import KEYS, ROLLOUT
from support.webhooks import KEY, envelope_of

LOCAL = TargetPolicy(parse_networks("127.0.0.0/8"))


class Receiver:
    """Any number of receivers on one port, told apart by their path.

    Attributes:
        secrets: by path; a path without one takes posts unverified.
        got: the event ids that came, by path, in order.
        status: what a path answers; 200 unless set. Negative: it hangs for so many seconds.
    """

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.got: dict[str, list[str]] = defaultdict(list)
        self.numbers: dict[str, list[int]] = defaultdict(list)
        self.arrived: dict[str, list[float]] = defaultdict(list)
        self.status: dict[str, int] = {}
        self.port = 0
        self._ready, self._end = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application()
        app.router.add_post("/{path}", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        path, body = request.match_info["path"], await request.read()
        secret, status = self.secrets.get(path), self.status.get(path, 200)
        if secret is not None:
            event = verify(dict(request.headers), body, secret, keys=KEYS)
            assert request.headers["content-type"] == "application/cloudevents+json"
            self.numbers[path].append(event.data.number)
        self.got[path].append(request.headers["webhook-id"])
        self.arrived[path].append(time.monotonic())
        if status < 0:
            await asyncio.sleep(-status)
        return web.Response(status=max(status, 200))


class WebhookRig:
    """The log, and as many webhook services on it as a test likes."""

    def __init__(self, *, retry_seconds: int = 3600, timeout_seconds: float = 5.0, partitions: int = 1) -> None:
        self.topics = Topics(keyed_partitions=partitions)
        self.clock, self.metrics = WallClock(), Metrics()
        self.log = MemoryLog(topic_specs(self.topics), self.clock)
        self.receiver = Receiver()
        self.services: list[WebhookService] = []
        self._numbers: dict[str, int] = defaultdict(int)
        self._timeout_seconds = timeout_seconds
        self.parts = DeliveryParts(
            log=self.log,
            topics=self.topics,
            key=KEY,
            clock=self.clock,
            metrics=self.metrics,
            retry_seconds=retry_seconds,
        )

    def service(self, owned: Callable[[], Collection[int]] | None = None) -> WebhookService:
        """Start another process's webhooks."""
        service = WebhookService(
            self.parts,
            LOCAL,
            owned or (lambda: range(self.topics.keyed_partitions)),
            timeout_seconds=self._timeout_seconds,
            subscriptions_max=2000,
        )
        service.start()
        self.services.append(service)
        return service

    def subscribe(self, path: str, **wanted: object) -> str:
        """Have events posted to a path of the receiver; return the webhook's id."""
        made = Wanted(url=self.receiver.url(path), **wanted)  # type: ignore[arg-type]
        status, secret = self.services[-1].desk.create(made, "ops-1")
        self.receiver.secrets[path] = secret
        return status.id

    def decide(self, rollout: str = ROLLOUT, partition: int = 0, times: int = 1, **given: object) -> None:
        """Append events of a rollout."""
        source = TopicPartition(self.topics.name("killswitch"), partition)
        for _ in range(times):
            self._numbers[rollout] += 1
            value, _ = envelope_of(rollout, self._numbers[rollout], **given)  # type: ignore[arg-type]
            self.log.append([Entry(*source, rollout.encode(), value)])


@contextmanager
def webhooks(**given: object) -> Iterator[WebhookRig]:
    """Run a rig with one service for the length of a block."""
    rig = WebhookRig(**given)  # type: ignore[arg-type]
    rig.receiver.start()
    try:
        rig.service()
        yield rig
    finally:
        # Wakes whoever waits for records.
        rig.log.close()
        for service in rig.services:
            service.stop()
        rig.receiver.stop()
