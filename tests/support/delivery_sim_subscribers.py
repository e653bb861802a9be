"""The subscribers of the simulation of delivery: by stream, by poll, by webhook; each with a disk that outlives it."""

import asyncio
import random
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from starlette.types import Message

from signals.client.webhooks import verify
from signals.delivery.cursor import decode_cursor
from signals.delivery.hub import StreamHub, Subscriber
from signals.delivery.poll import EventPage, EventPolls
from signals.delivery.stream import EventStreams
from signals.delivery.wanted import Wanted
from signals.delivery.webhooks.deliverer import headers_of
from signals.delivery.webhooks.dispatcher import Post
from signals.delivery.webhooks.lane import Result
from signals.delivery.webhooks.words import AttemptWord
from signals.killswitch.verify import Chain, VerifiedEvent, open_event, parse_envelope
from support.switches import KEYS
from support.webhooks import DELIVERED, FAILED, KEY, TIMED_OUT, UNREACHABLE

PARTITIONS = 2
_NAP_STEPS = 6


class Way(Protocol):
    """What a subscriber needs of a server: its open ends."""

    hub: StreamHub
    streams: EventStreams
    polls: EventPolls


class Place(Protocol):
    """Where a subscriber lives: there is a server, or there is none just now."""

    @property
    def server(self) -> Way | None: ...


@cache
def verified(value: bytes) -> VerifiedEvent:
    """Return what a subscriber makes of an event's bytes."""
    return open_event(parse_envelope(value), KEYS)


async def nap() -> None:
    """Let everything that can go on without time go on."""
    for _ in range(_NAP_STEPS):
        await asyncio.sleep(0)


@dataclass
class Kept:
    """What a subscriber has on disk: written in one piece with what it did.

    Attributes:
        cursor: where to go on; None: at the start.
        last: the last event of each rollout.
        done: what it did, in order.
    """

    cursor: str | None = None
    last: dict[str, VerifiedEvent] = field(default_factory=dict)
    done: list[tuple[str, int]] = field(default_factory=list)


class Subscribed:
    """What a stream's and a poll's subscriber have in common: a disk, and a place to go on from."""

    def __init__(self, world: Place) -> None:
        self.world, self.kept, self.task = world, Kept(), None
        self.chain = self._chain()

    task: "asyncio.Task[object] | None"

    def _chain(self) -> Chain:
        chain = Chain(from_start=True)
        for event in self.kept.last.values():
            chain.stand_at(event)
        return chain

    def place(self) -> dict[int, int]:
        if self.kept.cursor is None:
            return dict.fromkeys(range(PARTITIONS), 0)
        return decode_cursor(self.kept.cursor, range(PARTITIONS))

    def obey(self, value: bytes) -> None:
        event = verified(value)
        if self.chain.accept(event):
            self.kept.last[event.switch.rollout] = event
            self.kept.done.append((event.switch.rollout, event.switch.number))

    async def crash(self) -> None:
        """Forget all but the disk."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        self.task = None
        self.chain = self._chain()


class StreamSubscriber(Subscribed):
    """Drives the ASGI response of a stream, reads as fast as it likes, resumes by the id it kept."""

    def __init__(self, world: Place) -> None:
        super().__init__(world)
        self.buffer, self.reading = b"", asyncio.Event()

    async def turn(self, chance: random.Random, *, calm: bool) -> None:
        server = self.world.server
        if self.task is not None and self.task.done() and not self.buffer:
            await self.crash()
        if self.task is None and server is not None and (calm or chance.random() < 0.5):
            subscriber = server.hub.admit(Wanted())
            assert subscriber is not None
            response = server.streams.response(subscriber, self.place())
            self.buffer, self.reading = b"", asyncio.Event()
            self.task = asyncio.ensure_future(response({}, self._receive, self._send))
        if calm or chance.random() < 0.6:
            self.reading.set()
        elif chance.random() < 0.3:
            self.reading.clear()
        await nap()
        self._read(1000 if calm else chance.choice((0, 1, 2, 1000)))

    def _read(self, most: int) -> None:
        while most and b"\n\n" in self.buffer:
            block, _, self.buffer = self.buffer.partition(b"\n\n")
            said = dict(line.split(b": ", 1) for line in block.splitlines())
            if b"data" in said:
                assert said[b"event"] == b"killswitch"
                self.obey(said[b"data"])
            if b"id" in said:
                self.kept.cursor = said[b"id"].decode()
            most -= 1

    async def crash(self) -> None:
        await super().crash()
        self.buffer = b""

    async def _receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        body: bytes = message.get("body", b"")
        if body:
            await self.reading.wait()
        self.buffer += body


class PollSubscriber(Subscribed):
    """Asks for a page, obeys it, keeps the cursor; waits in some polls and not in others."""

    task: "asyncio.Task[EventPage] | None"
    admitted: Subscriber | None = None
    hub: StreamHub

    async def turn(self, chance: random.Random, *, calm: bool) -> None:
        server = self.world.server
        if self.task is None and server is not None and (calm or chance.random() < 0.6):
            self.hub, self.admitted = server.hub, server.hub.admit(Wanted())
            assert self.admitted is not None
            wait_seconds = 0 if calm else chance.choice((0, 3600))
            self.task = asyncio.ensure_future(
                server.polls.page(self.admitted, self.place(), chance.choice((1, 3, 100)), wait_seconds)
            )
        await nap()
        if self.task is None or not self.task.done():
            return
        page = self.task.result()
        self._leave()
        for value in page.events:
            self.obey(value)
            if not calm and chance.random() < 0.05:
                # Crashed in the middle of a page: what was done is on disk, the cursor is not.
                await self.crash()
                return
        self.kept.cursor = page.next

    async def crash(self) -> None:
        await super().crash()
        self._leave()

    def _leave(self) -> None:
        self.task = None
        if self.admitted is not None:
            self.hub.leave(self.admitted)
        self.admitted = None


class WebhookReceiver:
    """Takes posts, keeps the ids it had; answers badly, late or not at all."""

    def __init__(self, name: str) -> None:
        self.name, self.kept, self.mode = name, Kept(), "well"
        self.seen: set[str] = set()

    def take(self, post: Post, now_ms: int) -> Result:
        """Answer a post; the sender sees the result."""
        if self.mode == "down":
            return UNREACHABLE
        if self.mode == "failing":
            return FAILED
        if self.mode == "busy":
            return Result(AttemptWord.BUSY, "429", 5000)
        headers = headers_of(KEY, post.subscription, post.event, now_ms)
        secret = KEY.secret(self.name, post.subscription.version)
        event = verify(headers, post.event.body, secret, now_seconds=now_ms / 1000)
        if event.id not in self.seen:
            self.seen.add(event.id)
            self.kept.done.append((event.data.rollout, event.data.number))
        # It has it, but its answer is lost, or comes too late.
        return TIMED_OUT if self.mode == "mute" else DELIVERED
