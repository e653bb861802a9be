"""A Cordon's way out under faults, simulated: one seed is one history, and it is the same each time.

The log is the one in memory and the clock is driven; hub, streams, polls, dispatchers, cursors and `Chain` are the
real ones. The server crashes and comes back, loses acknowledgements and lags; subscribers of each kind crash, lag,
disconnect and come back. Nothing waits for real time.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

from ingest.clock import DrivenClock
from ingest.events import encoder
from ingest.log.interface import Entry, Fence, FencedError, LogUnavailableError, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics, keyed_partition_of
from signals.delivery.hub import StreamHub
from signals.delivery.poll import EventPolls
from signals.delivery.stream import EventStreams
from signals.delivery.webhooks.deliverer import latest_records
from signals.delivery.webhooks.dispatcher import Dispatcher, Post
from signals.killswitch.verify import digest_of
from support.delivery_sim_subscribers import PARTITIONS, PollSubscriber, StreamSubscriber, WebhookReceiver
from support.switches import START_MS
from support.webhooks import envelope_of, subscription

ROLLOUTS = ("r-0", "r-1", "r-2", "r-3")
EVENTS_MAX = 16
QUEUE_MAX = 4
RETRY_MS = 1 << 50
TURNS = 60
SETTLE_TURNS_MAX = 200


@cache
def history(rollout: str) -> tuple[bytes, ...]:
    """Return the signed events of a rollout, each naming the one before; the same in every run."""
    found, previous = list[bytes](), ""
    for number in range(1, EVENTS_MAX + 1):
        value, payload = envelope_of(rollout, number, previous=previous)
        previous = digest_of(payload)
        found.append(value)
    return tuple(found)


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
