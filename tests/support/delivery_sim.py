"""A Cordon's way out under faults, simulated: one seed is one history, and it is the same each time.

The log is the one in memory and the clock is driven; hub, streams, polls, dispatchers, cursors and `Chain` are the
real ones. The server crashes and comes back, loses acknowledgements and lags; subscribers of each kind crash, lag,
disconnect and come back. Nothing waits for real time.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from starlette.types import Message

from ingest.clock import DrivenClock
from ingest.events import encoder
from ingest.log.interface import Entry, Fence, FencedError, LogUnavailableError, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics, keyed_partition_of
from signals.client.webhooks import verify
from signals.delivery.cursor import decode_cursor
from signals.delivery.hub import StreamHub, Subscriber
from signals.delivery.poll import EventPage, EventPolls
from signals.delivery.stream import EventStreams
from signals.delivery.wanted import Wanted
from signals.delivery.webhooks.deliverer import headers_of, latest_records
from signals.delivery.webhooks.dispatcher import Dispatcher, Post
from signals.delivery.webhooks.lane import Result
from signals.delivery.webhooks.words import AttemptWord
from signals.killswitch.verify import Chain, VerifiedEvent, digest_of, open_event, parse_envelope
from support.switches import KEYS, START_MS
from support.webhooks import DELIVERED, FAILED, KEY, TIMED_OUT, UNREACHABLE, envelope_of, subscription

ROLLOUTS = ("r-0", "r-1", "r-2", "r-3")
EVENTS_MAX = 16
PARTITIONS = 2
QUEUE_MAX = 4
RETRY_MS = 1 << 50
TURNS = 60
SETTLE_TURNS_MAX = 200
_NAP_STEPS = 6


@cache
def history(rollout: str) -> tuple[bytes, ...]:
    """Return the signed events of a rollout, each naming the one before; the same in every run."""
    found, previous = list[bytes](), ""
    for number in range(1, EVENTS_MAX + 1):
        value, payload = envelope_of(rollout, number, previous=previous)
        previous = digest_of(payload)
        found.append(value)
    return tuple(found)


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


class Server:
    """One life of Cordon's way out."""

    def __init__(self, log: MemoryLog, topics: Topics, clock: DrivenClock, seed: int) -> None:
        self.log, self.clock = log, clock
        topic = topics.name("killswitch")
        self.events = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        self.places = {source: log.bounds(source)[1] for source in self.events}
        self.hub = StreamHub(QUEUE_MAX, 100, Metrics())
        self.hub.open({source.partition: offset for source, offset in self.places.items()})
        self.streams = EventStreams(log, topic, self.hub)
        self.polls = EventPolls(log, topic, self.hub)
        self.dispatchers: list[tuple[Dispatcher, Fence]] = []
        self.under_way: list[tuple[Dispatcher, Post]] = []
        subscriptions, _ = latest_records(log, TopicPartition(topics.name("subscriptions"), 0))
        for source in self.events:
            deliveries = TopicPartition(topics.name("deliveries"), source.partition)
            fence = log.claim(f"webhooks/{source.partition}")
            places, _ = latest_records(log, deliveries)
            dispatcher = Dispatcher(deliveries, RETRY_MS, self.places[source], seed)
            dispatcher.restore(places)
            dispatcher.take_subscriptions(subscriptions)
            dispatcher.tidy()
            self.dispatchers.append((dispatcher, fence))

    def follow(self, most: int) -> None:
        """Hand on what is new in the log, at most so many records of a partition."""
        for source, (dispatcher, _) in zip(self.events, self.dispatchers, strict=True):
            records = self.log.read(source, self.places[source], max_records=most)
            if records:
                self.places[source] = records[-1].offset + 1
                self.hub.offer(source, records)
                dispatcher.take_events(records)

    def post(self, chance: random.Random) -> None:
        """Begin what is due; reads that a webhook needs may fail."""
        for source, (dispatcher, _) in zip(self.events, self.dispatchers, strict=True):
            posts, reads = dispatcher.actions(self.clock.now_ms())
            self.under_way += [(dispatcher, post) for post in posts]
            for read in reads:
                failed = chance.random() < 0.2
                records = (
                    None if failed else self.log.read(source, read.offset, max_records=chance.choice((1, 3, read.most)))
                )
                dispatcher.give(read, records)

    def flush(self) -> None:
        """Write down how far webhooks came; what the log did not take is kept."""
        for dispatcher, fence in self.dispatchers:
            try:
                while entries := dispatcher.outputs():
                    self.log.append(entries, fence)
                    dispatcher.written()
            except LogUnavailableError:
                continue


class Subscribed:
    """What a stream's and a poll's subscriber have in common: a disk, and a place to go on from."""

    def __init__(self, world: "World") -> None:
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

    def __init__(self, world: "World") -> None:
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


class World:
    """Everything of one run."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.topics = Topics(keyed_partitions=PARTITIONS)
        self.clock = DrivenClock(START_MS)
        self.log = MemoryLog(topic_specs(self.topics), self.clock)
        self.said: dict[str, int] = defaultdict(int)
        self.receivers = {name: WebhookReceiver(name) for name in ("wh-0", "wh-1", "wh-2")}
        source = TopicPartition(self.topics.name("subscriptions"), 0)
        for name in self.receivers:
            one = subscription(name, starts=[0] * PARTITIONS)
            self.log.append([Entry(*source, name.encode(), encoder.encode(one))])
        self.seed = seed
        self.server: Server | None = Server(self.log, self.topics, self.clock, seed)
        self.zombies: list[Server] = []
        self.followers: list[StreamSubscriber | PollSubscriber] = [
            StreamSubscriber(self),
            StreamSubscriber(self),
            PollSubscriber(self),
            PollSubscriber(self),
        ]
        self.crashes = 0

    async def run(self) -> None:
        """Let faults happen for a while, then mend everything and go on until all is delivered."""
        for _ in range(TURNS):
            await self._fault()
            await self._turn(calm=False)
        await self._mend()
        for _ in range(SETTLE_TURNS_MAX):
            await self._turn(calm=True)
            if all(len(done) >= sum(self.said.values()) for done in self.done().values()):
                break
        # Once more, for what might still come twice.
        await self._turn(calm=True)
        await self._end()

    def done(self) -> dict[str, list[tuple[str, int]]]:
        """Return what each subscriber did, in order."""
        found = {f"{type(one).__name__} {number}": one.kept.done for number, one in enumerate(self.followers)}
        return found | {name: receiver.kept.done for name, receiver in self.receivers.items()}

    def _decide(self) -> None:
        rollout = self.chance.choice(ROLLOUTS)
        if self.said[rollout] == EVENTS_MAX:
            return
        value = history(rollout)[self.said[rollout]]
        self.said[rollout] += 1
        source = TopicPartition(self.topics.name("killswitch"), keyed_partition_of(rollout, PARTITIONS))
        # An append whose acknowledgement was lost is made again: the same bytes may lie there twice.
        for _ in range(2 if self.chance.random() < 0.1 else 1):
            self.log.append([Entry(*source, rollout.encode(), value)])

    async def _fault(self) -> None:
        chance = self.chance
        if chance.random() < 0.1:
            await self._crash_server()
        if self.server is None and chance.random() < 0.5:
            self.server = Server(self.log, self.topics, self.clock, self.seed)
        for follower in self.followers:
            if chance.random() < 0.06:
                self.crashes += 1
                await follower.crash()
        for receiver in self.receivers.values():
            if chance.random() < 0.2:
                receiver.mode = chance.choice(("well", "well", "down", "failing", "busy", "mute"))

    async def _crash_server(self) -> None:
        self.crashes += 1
        server, self.server = self.server, None
        if server is None:
            return
        if self.chance.random() < 0.3:
            # It is thought dead and goes on posting: its fence alone ends it.
            self.zombies.append(server)
        for follower in self.followers:
            await follower.crash()

    async def _turn(self, *, calm: bool) -> None:
        chance, server = self.chance, self.server
        if not calm:
            for _ in range(chance.choice((0, 0, 1, 2))):
                self._decide()
        if server is not None:
            server.follow(1000 if calm else chance.choice((0, 1, 3, 1000)))
        for one in [*self.zombies, *([server] if server is not None else [])]:
            one.post(chance)
            self._answer(one, calm=calm)
        for follower in self.followers:
            await follower.turn(chance, calm=calm)
        if server is not None and (calm or chance.random() < 0.4):
            self._flush(server, calm=calm)
        for zombie in list(self.zombies):
            if chance.random() < 0.3:
                try:
                    zombie.flush()
                except FencedError:
                    self.zombies.remove(zombie)
        self.clock.drive_to(self.clock.now_ms() + (300_000 if calm else chance.choice((10, 500, 2000, 60_000))))

    def _answer(self, server: Server, *, calm: bool) -> None:
        left: list[tuple[Dispatcher, Post]] = []
        self.chance.shuffle(server.under_way)
        for dispatcher, post in server.under_way:
            if not calm and self.chance.random() < 0.3:
                left.append((dispatcher, post))
                continue
            now_ms = self.clock.now_ms()
            dispatcher.settle(post, self.receivers[post.subscription.id].take(post, now_ms), now_ms)
        server.under_way = left

    def _flush(self, server: Server, *, calm: bool) -> None:
        if not calm and self.chance.random() < 0.2 and any(one.outputs() for one, _ in server.dispatchers):
            self.log.lose_next_acknowledgement()
        server.flush()

    async def _mend(self) -> None:
        if self.server is None:
            self.server = Server(self.log, self.topics, self.clock, self.seed)
        self.zombies.clear()
        for receiver in self.receivers.values():
            receiver.mode = "well"
        for follower in self.followers:
            await follower.crash()

    async def _end(self) -> None:
        for follower in self.followers:
            await follower.crash()


async def inline(function: object, *arguments: object) -> object:
    """Stand in for `asyncio.to_thread`: the same, at once, so that a seed is one history."""
    await asyncio.sleep(0)
    return function(*arguments)  # type: ignore[operator]


def problems_of(world: World) -> Sequence[str]:
    """Return what a run did wrong: an event lost, doubled or out of order, at whom."""
    found = []
    for name, done in world.done().items():
        for rollout, most in world.said.items():
            numbers = [number for which, number in done if which == rollout]
            if numbers != list(range(1, most + 1)):
                found.append(f"seed {world.seed}: {name} had of {rollout} {numbers}, not 1 to {most}")
    return found
