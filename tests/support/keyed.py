"""Detection, signals and the sink as workers run them, fed by agents; and what the embedded stages make of the same."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import uvloop

from deploy.workers.agents import Agents
from deploy.workers.detection import DetectionParts, detection_agents
from deploy.workers.signals import SignalsParts, signals_agents
from deploy.workers.sink import StoreParts, store_agents
from detectors.policy import load as load_policies
from detectors.stage import DetectionStage
from ingest.clock import DrivenClock
from ingest.events import encoder, product_key
from ingest.log.interface import Entry, Log, TopicPartition
from ingest.log.kafka.connection import connection_of
from ingest.log.memory import MemoryLog
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.rollouts import Rollout
from ingest.settings import Settings
from ingest.store.interface import Store
from ingest.store.sink import SinkLimits
from ingest.topics import Topics, keyed_partition_of
from ingest.windows import Step
from signals.killswitch.stage import SignalsStage
from signals.killswitch.verify import VerifiedEvent, open_event, parse_envelope
from support.switches import KEYS, SIGNER, START_MS

# Steps' times of append differ between a replay here and the log's own clock: nobody may be left out for it.
BLIND_SECONDS = 3600
WAIT_SECONDS = 40.0


def keyed_settings(topics: Topics, **more: Any) -> Settings:
    """Return the settings of a worker in a lane."""
    values = {
        "lane": topics.lane,
        "device_partitions": topics.device_partitions,
        "keyed_partitions": topics.keyed_partitions,
        "blind_seconds": BLIND_SECONDS,
        "snapshot_seconds": 1,
        **more,
    }
    return msgspec.convert(values, Settings)


def entries_of(topics: Topics, steps: Iterable[Step]) -> list[Entry]:
    """Return steps as grouping appends them: to every partition of the cohort topic, with the windows it is for."""
    name, count = topics.name("cohorts"), topics.keyed_partitions
    entries = []
    for step in steps:
        for number in range(count):
            windows = [w for w in step.windows if keyed_partition_of(product_key(w.vendor, w.product), count) == number]
            entries.append(Entry(name, number, None, encoder.encode(msgspec.structs.replace(step, windows=windows))))
    return entries


def declare(log: Log, topics: Topics, *rollouts: Rollout) -> None:
    """Append rollouts."""
    log.append([Entry(topics.name("rollouts"), 0, one.rollout.encode(), encoder.encode(one)) for one in rollouts])


def values_of(log: Log, source: TopicPartition) -> list[bytes]:
    """Return every value that a partition holds, in order."""
    position, end = log.bounds(source)
    found: list[bytes] = []
    while position < end:
        records = log.read(source, position)
        if not records:
            break
        found += [record.value or b"" for record in records]
        position = records[-1].offset + 1
    return found


def latest_of(log: Log, source: TopicPartition) -> dict[bytes, bytes]:
    """Return the latest value of each key in a partition."""
    position, end = log.bounds(source)
    found: dict[bytes, bytes] = {}
    while position < end:
        records = log.read(source, position)
        if not records:
            break
        found.update({record.key or b"": record.value or b"" for record in records})
        position = records[-1].offset + 1
    return found


def events_of(log: Log, topics: Topics) -> list[VerifiedEvent]:
    """Return all kill-switch events, each signature checked."""
    return [
        open_event(parse_envelope(value), KEYS)
        for number in range(topics.keyed_partitions)
        for value in values_of(log, TopicPartition(topics.name("killswitch"), number))
    ]


@dataclass
class Embedded:
    """What the stages make of records in one process: the reference."""

    topics: Topics
    log: MemoryLog = field(init=False)

    def __post_init__(self) -> None:
        self.clock = DrivenClock(START_MS)
        self.log = MemoryLog(topic_specs(self.topics), self.clock)

    def run(self, *rollouts: Rollout, steps: Iterable[Step]) -> None:
        """Take everything through detection and signals."""
        declare(self.log, self.topics, *rollouts)
        self.log.append(entries_of(self.topics, steps))
        metrics = Metrics()
        owners = []
        for number in range(self.topics.keyed_partitions):
            detection = DetectionStage(self.topics, number, load_policies(), blind_seconds=BLIND_SECONDS)
            state = TopicPartition(self.topics.name("detection"), number)
            owners.append(Owner(self.log, f"detection/{number}", "detection", detection, state, self.clock))
        for number in range(self.topics.keyed_partitions):
            signals = SignalsStage(self.log, self.topics, number, SIGNER, KEYS, self.clock, metrics)
            state = TopicPartition(self.topics.name("switches"), number)
            owners.append(Owner(self.log, f"signals/{number}", "signals", signals, state, self.clock))
        for owner in owners:
            owner.start()
        for owner in owners:
            while owner.step(0):
                pass


class KeyedWorker:
    """Stages of one process that agents feed, in an event loop of their own in a thread; `store` needs a store."""

    def __init__(
        self, settings: Settings, topics: Topics, log: Log, stages: Iterable[str], store: Store | None = None
    ) -> None:
        self.settings, self.topics, self.log, self.store = settings, topics, log, store
        self.stages = tuple(stages)
        self.metrics = Metrics()
        self.agents: list[Agents] = []
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="keyed-worker", daemon=True)

    def __enter__(self) -> "KeyedWorker":
        self._thread.start()
        self.call(self._start)
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, make: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine in the worker's loop."""
        asyncio.run_coroutine_threadsafe(self._awaited(make), self._loop).result(WAIT_SECONDS)

    @staticmethod
    async def _awaited(make: Callable[[], Awaitable[None]]) -> None:
        await make()

    async def _start(self) -> None:
        connection = connection_of(self.settings)
        clock = DrivenClock(START_MS)
        if "detection" in self.stages:
            parts = DetectionParts(
                log=self.log,
                topics=self.topics,
                settings=self.settings,
                policies=load_policies(),
                words=None,
                clock=clock,
                metrics=self.metrics,
            )
            self.agents.append(detection_agents(parts, connection))
        if "signals" in self.stages:
            told = SignalsParts(
                log=self.log,
                topics=self.topics,
                settings=self.settings,
                signer=SIGNER,
                trusted=KEYS,
                words=None,
                clock=clock,
                metrics=self.metrics,
            )
            self.agents.append(signals_agents(told, connection))
        if self.store is not None and "store" in self.stages:
            kept = StoreParts(
                log=self.log,
                topics=self.topics,
                settings=self.settings,
                store=self.store,
                clock=clock,
                metrics=self.metrics,
                limits=SinkLimits(linger_seconds=0.2, activity_linger_seconds=0.4),
            )
            self.agents.append(store_agents(kept, connection))
        for agents in self.agents:
            await agents.start()

    async def _stop(self) -> None:
        for agents in self.agents:
            await agents.stop()


def wait_for(holds: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait until something holds.

    Raises:
        AssertionError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
