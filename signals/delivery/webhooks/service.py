"""The webhooks of one process: a thread with an event loop of its own, in which each owned partition has a deliverer.

Nothing here runs in the pipeline's threads or on the listeners' loop, and nothing that goes wrong here ends them: a
deliverer that fails is made anew after a pause. Invariant: which partitions are delivered is somebody else's word,
asked again and again; the fence decides where two processes were told the same.
"""

import asyncio
import functools
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future

import uvloop

from ingest.log.interface import FencedError
from signals.delivery.webhooks.deliverer import Deliverer, DeliveryParts
from signals.delivery.webhooks.desk import WebhookDesk
from signals.delivery.webhooks.lane import Result
from signals.delivery.webhooks.sender import Lookup, Poster, WebhookSender, system_lookup
from signals.delivery.webhooks.targets import TargetPolicy

LOOK_SECONDS = 0.5
PAUSE_SECONDS = 5.0
STOP_SECONDS_MAX = 10.0

_LOGGER = logging.getLogger(__name__)


class WebhookService:
    """Subscriptions, their deliverers, and the desk at which people ask for them."""

    def __init__(
        self,
        parts: DeliveryParts,
        policy: TargetPolicy,
        owned: Callable[[], Collection[int]],
        *,
        timeout_seconds: float,
        subscriptions_max: int,
        lookup: Lookup = system_lookup,
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            parts: what deliverers are made of.
            policy: where webhooks may go.
            owned: the keyed partitions that this process should deliver; asked twice a second, from another thread.
            timeout_seconds: setting `webhook_timeout_seconds`.
            subscriptions_max: setting `webhook_subscriptions_max`.
            lookup: resolves names.
        """
        self._parts, self._policy, self._owned = parts, policy, owned
        self._timeout_seconds, self._lookup = timeout_seconds, lookup
        self.desk = WebhookDesk(parts, policy, self._post_once, subscriptions_max)
        self._deliverers: dict[int, asyncio.Task[None]] = {}
        self._running: dict[int, Deliverer] = {}
        self._not_before: dict[int, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sender: WebhookSender | None = None
        self._end: asyncio.Event | None = None
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Fill the desk's view and begin to deliver; blocks until both stand.

        Raises:
            LogError: the view can't be filled.
        """
        self.desk.view.start()
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """End every deliverer after it has written how far it came; what is under way is posted again later."""
        if self._loop is not None and self._end is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()
        self.desk.view.stop()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._live())
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            else:
                _LOGGER.exception("webhooks ended: nothing is posted until this process is started again")

    async def _live(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with WebhookSender(self._policy, self._parts.clock, self._timeout_seconds, self._lookup) as sender:
            self._sender = sender
            ending = asyncio.create_task(self._end.wait())
            self._ready.set_result(None)
            while not self._end.is_set():
                self._tend(sender)
                await asyncio.wait([ending], timeout=LOOK_SECONDS)
            for deliverer in self._running.values():
                deliverer.ask_to_stop()
            if self._deliverers:
                await asyncio.wait(self._deliverers.values(), timeout=STOP_SECONDS_MAX)

    def _tend(self, sender: Poster) -> None:
        """Begin what is owned and does not run, and end what runs and is owned no more."""
        owned, now = set(self._owned()), asyncio.get_running_loop().time()
        for partition in [number for number in self._running if number not in owned]:
            self._running[partition].ask_to_stop()
        for partition in sorted(owned - self._deliverers.keys()):
            if self._not_before.get(partition, 0.0) > now:
                continue
            deliverer = self._running[partition] = Deliverer(self._parts, partition, sender)
            task = self._deliverers[partition] = asyncio.create_task(deliverer.run())
            task.add_done_callback(functools.partial(self._ended, partition))

    def _ended(self, partition: int, task: "asyncio.Task[None]") -> None:
        self._deliverers.pop(partition, None)
        self._running.pop(partition, None)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        self._not_before[partition] = asyncio.get_running_loop().time() + PAUSE_SECONDS
        if isinstance(error, FencedError):
            _LOGGER.warning("webhooks of partition %d are delivered by another process now", partition)
            return
        self._parts.metrics.count("webhook_failures_total")
        _LOGGER.error("webhooks of partition %d failed and begin again soon", partition, exc_info=error)

    async def _post_once(self, url: str, headers: Mapping[str, str], body: bytes) -> Result:
        """Post from whatever loop asks, on this one's: its connections belong to it."""
        assert self._loop is not None
        assert self._sender is not None
        posting = asyncio.run_coroutine_threadsafe(self._sender.post(url, headers, body), self._loop)
        return await asyncio.wrap_future(posting)
