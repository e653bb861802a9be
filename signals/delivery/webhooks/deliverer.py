"""Drives the dispatcher of one keyed partition in an event loop: reads the log, posts, and writes down how far it came.

One deliverer a partition: it claims the fence `webhooks/K` before it reads how far the one before it came, and every
place is appended under that claim. Of two that both believe they own the partition the older one's next append is
refused, and it ends; what both posted carries the same id. Invariant: an event is posted again until its subscriber has
answered, and forgotten only once that is in the log.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ingest.clock import Clock
from ingest.log.interface import Fence, Log, LogUnavailableError, Record, TopicPartition
from ingest.metrics import Metrics
from ingest.topics import Topics
from signals.client.webhooks import DSSE_HEADER, ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from signals.delivery.tail import Handler, Tail
from signals.delivery.webhooks.dispatcher import Dispatcher, Numbers, Post, Read
from signals.delivery.webhooks.event import PostedEvent
from signals.delivery.webhooks.lane import Result
from signals.delivery.webhooks.secret import WebhookKey
from signals.delivery.webhooks.sender import Poster
from signals.delivery.webhooks.words import AttemptWord, Subscription
from signals.events import PAYLOAD_TYPE

FLUSH_SECONDS = 0.5
RETRY_SECONDS = 0.5
READERS_MAX = 4
POSTS_AT_ONCE = 16
USER_AGENT = "cordon-webhooks/1"

_LOGGER = logging.getLogger(__name__)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryParts:
    """What every deliverer of a process is made of.

    Attributes:
        log: of the installation.
        topics: the lane's.
        key: derives the secrets.
        clock: the wall clock.
        metrics: of this process.
        retry_seconds: setting `webhook_retry_seconds`.
    """

    log: Log
    topics: Topics
    key: WebhookKey
    clock: Clock
    metrics: Metrics
    retry_seconds: int


def headers_of(key: WebhookKey, subscription: Subscription, event: PostedEvent, now_ms: int) -> dict[str, str]:
    """Return the headers of a post: Standard Webhooks, and the event's own signatures."""
    return {
        "content-type": PAYLOAD_TYPE,
        "user-agent": USER_AGENT,
        ID_HEADER: event.event_id,
        TIMESTAMP_HEADER: str(now_ms // 1000),
        SIGNATURE_HEADER: key.signatures(subscription, event.event_id, now_ms, event.body),
        DSSE_HEADER: event.signatures,
    }


def latest_records(log: Log, source: TopicPartition) -> tuple[list[Record], int]:
    """Return the latest record of each key of a compacted partition, and the offset behind the last one read."""
    latest: dict[bytes, Record] = {}
    offset, end = log.bounds(source)
    while offset < end:
        records = log.read(source, offset)
        if not records:
            return list(latest.values()), end
        for record in records:
            if record.key is not None:
                latest.pop(record.key, None)
                latest[record.key] = record
        offset = records[-1].offset + 1
    return list(latest.values()), offset


class Deliverer:
    """The webhooks of one partition on the running loop; `run` is its life."""

    def __init__(self, parts: DeliveryParts, partition: int, poster: Poster) -> None:
        """Prepare; nothing is claimed or read before `run`."""
        self._parts, self._poster = parts, poster
        self.partition = partition
        topics = parts.topics
        self._events = TopicPartition(topics.name("killswitch"), partition)
        self._deliveries = TopicPartition(topics.name("deliveries"), partition)
        self._subscriptions = TopicPartition(topics.name("subscriptions"), 0)
        self._readers = asyncio.Semaphore(READERS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self.dispatcher: Dispatcher | None = None

    def ask_to_stop(self) -> None:
        """Let `run` end soon: what is under way is let go, and how far it came is written once more."""
        self._stopping.set()
        self._woken.set()

    async def run(self) -> None:
        """Deliver until asked to stop.

        Raises:
            FencedError: another deliverer has the partition.
            LogError: the log can't be used.
        """
        log, loop = self._parts.log, asyncio.get_running_loop()
        fence = await self._patiently(lambda: log.claim(f"webhooks/{self.partition}"))
        if fence is None:
            return
        tail = await self._patiently(lambda: self._restore(loop))
        if tail is None:
            return
        tail.start()
        flusher = asyncio.create_task(self._flush_for_ever(fence))
        flusher.add_done_callback(lambda _: self._woken.set())
        try:
            await self._dispatch(flusher)
        finally:
            await asyncio.to_thread(tail.stop)
            flusher.cancel()
            for task in self._tasks:
                task.cancel()
            ended = await asyncio.gather(flusher, *self._tasks, return_exceptions=True)
            self._say_numbers(gone=True)
        if isinstance(ended[0], Exception):
            raise ended[0]
        await self._flush(fence)

    async def _dispatch(self, flusher: "asyncio.Task[None]") -> None:
        dispatcher, clock = self.dispatcher, self._parts.clock
        assert dispatcher is not None
        while not self._stopping.is_set() and not flusher.done():
            self._woken.clear()
            posts, reads = dispatcher.actions(clock.now_ms())
            for number, post in enumerate(posts, 1):
                self._spawn(self._post(post))
                if number % POSTS_AT_ONCE == 0:
                    # What is begun leaves the process now: the first receivers must not wait for the thousandth post.
                    await asyncio.sleep(0)
            for read in reads:
                self._spawn(self._read(read))
            next_ms = dispatcher.next_ms()
            wait_seconds = 1.0 if next_ms is None else min(max((next_ms - clock.now_ms()) / 1000, 0.001), 1.0)
            try:
                await asyncio.wait_for(self._woken.wait(), wait_seconds)
            except TimeoutError:
                continue

    def _restore(self, loop: asyncio.AbstractEventLoop) -> Tail:
        """Load places, then subscriptions, and return what follows both topics from there."""
        log = self._parts.log
        places, _ = latest_records(log, self._deliveries)
        subscriptions, subscriptions_end = latest_records(log, self._subscriptions)
        head = log.bounds(self._events)[1]
        dispatcher = Dispatcher(self._deliveries, self._parts.retry_seconds * 1000, head)
        dispatcher.restore(places)
        dispatcher.take_subscriptions(subscriptions)
        dispatcher.tidy()
        self.dispatcher = dispatcher

        def hand_to(take: Callable[[Sequence[Record]], None]) -> Handler:
            return lambda _, records: self._hand_over(loop, take, records)

        handlers = {
            self._events: hand_to(dispatcher.take_events),
            self._subscriptions: hand_to(dispatcher.take_subscriptions),
        }
        return Tail(log, handlers, {self._events: head, self._subscriptions: subscriptions_end})

    def _hand_over(
        self,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[Sequence[Record]], None],
        records: Sequence[Record],
    ) -> None:
        # The loop closes only after the tail has stopped.
        loop.call_soon_threadsafe(self._take, take, records)

    def _take(self, take: Callable[[Sequence[Record]], None], records: Sequence[Record]) -> None:
        take(records)
        self._woken.set()

    async def _post(self, post: Post) -> None:
        parts, dispatcher = self._parts, self.dispatcher
        assert dispatcher is not None
        headers = headers_of(parts.key, post.subscription, post.event, parts.clock.now_ms())
        try:
            result = await self._poster.post(post.subscription.url, headers, post.event.body)
        except Exception as error:
            # Ours or the library's fault: one post must end neither its queue nor anybody else's.
            _LOGGER.exception("a webhook could not be posted")
            result = Result(AttemptWord.UNREACHABLE, f"{type(error).__name__}: {error}")
        now_ms = parts.clock.now_ms()
        parts.metrics.count("webhook_attempts_total", outcome=result.word.value)
        if result.word is AttemptWord.DELIVERED:
            parts.metrics.observe("webhook_delivery_seconds", max(0, now_ms - post.event.appended_at_ms) / 1000)
        dispatcher.settle(post, result, now_ms)
        self._woken.set()

    async def _read(self, read: Read) -> None:
        log, dispatcher = self._parts.log, self.dispatcher
        assert dispatcher is not None
        async with self._readers:
            try:
                records = await asyncio.to_thread(log.read, self._events, read.offset, read.most)
            except LogUnavailableError:
                await asyncio.sleep(RETRY_SECONDS)
                records = None
        dispatcher.give(read, records)
        self._woken.set()

    async def _flush_for_ever(self, fence: Fence) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self._flush(fence)
            except LogUnavailableError as error:
                _LOGGER.warning("how far webhooks came can't be written now, trying again: %s", error)
            self._say_numbers()

    async def _flush(self, fence: Fence) -> None:
        dispatcher = self.dispatcher
        assert dispatcher is not None
        while entries := dispatcher.outputs():
            await asyncio.to_thread(self._parts.log.append, entries, fence)
            dispatcher.written()

    def _say_numbers(self, *, gone: bool = False) -> None:
        if self.dispatcher is None:
            return
        numbers, metrics, partition = self.dispatcher.numbers(), self._parts.metrics, str(self.partition)
        age = (self._parts.clock.now_ms() - numbers.oldest_ms) / 1000 if numbers.oldest_ms else 0.0
        if gone:
            # The next one to deliver the partition, here or elsewhere, says how it stands.
            numbers, age = Numbers(), 0.0
        metrics.set("webhook_queue_events", numbers.queued, partition=partition)
        metrics.set("webhook_oldest_seconds", age, partition=partition)
        metrics.set("webhook_dead_letters", numbers.dead, partition=partition)
        metrics.set("webhook_disabled", numbers.disabled, partition=partition)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _patiently(self, ask: Callable[[], _Result]) -> _Result | None:
        """Ask the log in a thread until it answers; None when asked to stop meanwhile."""
        while not self._stopping.is_set():
            try:
                return await asyncio.to_thread(ask)
            except LogUnavailableError as error:
                _LOGGER.warning("webhooks of partition %d wait for the log: %s", self.partition, error)
                await asyncio.sleep(RETRY_SECONDS)
        return None
