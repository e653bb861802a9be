"""A live lane with an incident in its log, and what its own stages made of it: what reprocessing is held to."""

import random
from collections.abc import Iterator
from typing import Any, Protocol

from detectors.policy import load
from detectors.stage import DetectionStage
from detectors.verdict import Verdict, verdict_decoder
from ingest.clock import DrivenClock, WallClock
from ingest.events import encoder
from ingest.grouping.stage import GroupingSettings, GroupingStage
from ingest.log.interface import Entry, Log, TopicPartition
from ingest.log.owner import Owner
from ingest.metrics import Metrics
from ingest.rollouts import Bound, Rollout, rollout_id
from ingest.settings import Settings
from ingest.topics import TOPICS, Topics
from support.world import NEW, PRODUCT, T0, VENDOR, World

DEVICES, EXPOSED, CRASHES = 400, 60, 24
ROLLOUT = rollout_id(VENDOR, PRODUCT, NEW)
DECLARED_AT, OFFERED_AT, CRASHES_AT, END = 20, 25, 40, 110


class Paced(Protocol):
    """A clock that the incident moves on, or lets pass."""

    def pass_to(self, at_ms: int) -> int:
        """Come to event time `at_ms`; return what the clock says then."""
        ...


class Driven(DrivenClock):
    """A clock that jumps."""

    def pass_to(self, at_ms: int) -> int:
        self.drive_to(at_ms)
        return at_ms


def settings_of(topics: Topics) -> Settings:
    """Return settings of an installation of these partition counts."""
    return Settings(device_partitions=topics.device_partitions, keyed_partitions=topics.keyed_partitions)


def write_incident(log: Log, topics: Topics, clock: Paced) -> Iterator[int]:
    """Write 110 seconds of a fleet in which a rollout goes bad, a second a turn, as a gateway writes it."""
    world, rng = World(topics), random.Random(719)
    crashing = iter(rng.sample(range(EXPOSED), CRASHES))
    for second in range(1, END + 1):
        now = clock.pass_to(T0 + second * 1000)
        activity: list[Any] = [world.check_in(d, now) for d in range(second % 10, DEVICES, 10)]
        entries: list[Entry] = []
        if second == DECLARED_AT:
            entries += _declared(topics, now) + world.notices(now)
        if second == OFFERED_AT:
            activity += [world.offered(d, now) for d in range(EXPOSED)]
        crashes: list[Any] = []
        if second > CRASHES_AT and second % 2:
            crashes = [world.bsod(d, now - 500, NEW) for d in [next(crashing, -1)] if d >= 0]
        if second % 17 == 0:
            crashes.append(world.bsod(rng.randrange(EXPOSED, DEVICES), now - 300))
        for word, reports in (("activity", activity), ("crashes", crashes)):
            entries += world.batches(word, reports, now) if reports else []
        log.append([*entries, *world.ticks(now)])
        yield second


def _declared(topics: Topics, origin_ms: int) -> list[Entry]:
    rollout = Rollout(
        rollout=ROLLOUT,
        vendor=VENDOR,
        product=PRODUCT,
        update_kind="content",
        version=NEW,
        origin_ms=origin_ms,
        bound=Bound.OFFERED,
    )
    return [Entry(topics.name("rollouts"), 0, ROLLOUT.encode(), encoder.encode(rollout))]


class LiveStages:
    """The live lane's own grouping and detection, run as the incident happens."""

    def __init__(self, log: Log, topics: Topics) -> None:
        """Start them."""
        settings, clock = settings_of(topics), WallClock()
        numbers = range(topics.device_partitions)
        grouping = GroupingStage(topics, GroupingSettings(numbers, 100_000, 900, 60), Metrics())
        states = [TopicPartition(topics.name("fleet"), number) for number in numbers]
        self.owners = [Owner(log, "grouping", "grouping", grouping, states, clock, commit_seconds=0)]
        for number in range(topics.keyed_partitions):
            stage = DetectionStage(topics, number, load(None), blind_seconds=settings.blind_seconds)
            state = TopicPartition(topics.name("detection"), number)
            self.owners.append(Owner(log, f"detection/{number}", "detection", stage, state, clock, commit_seconds=0))
        for owner in self.owners:
            owner.start()
        grouping.generation = self.owners[0].fence.epoch

    def turn(self) -> None:
        """Take all there is."""
        for owner in self.owners:
            while owner.step(0.0):
                pass


def live_incident(log: Log, topics: Topics, clock: Paced) -> list[Verdict]:
    """Let the incident happen with the live lane's stages at work; return every verdict, in order."""
    stages = LiveStages(log, topics)
    for _ in write_incident(log, topics, clock):
        stages.turn()
    return list(verdicts_of(log, topics))


def verdicts_of(log: Log, topics: Topics) -> Iterator[Verdict]:
    """Yield the verdicts that a lane's topic holds."""
    for number in range(topics.keyed_partitions):
        for record in read_all(log, TopicPartition(topics.name("verdicts"), number)):
            yield verdict_decoder.decode(record)


def read_all(log: Log, source: TopicPartition) -> Iterator[bytes]:
    """Yield the values of a partition."""
    offset, end = log.bounds(source)
    while offset < end and (records := log.read(source, offset)):
        yield from (record.value for record in records if record.value is not None)
        offset = records[-1].offset + 1


def ends_and_commits(log: Log, topics: Topics) -> dict[str, Any]:
    """Return where every partition of a lane begins and ends, and what its groups have committed."""
    found: dict[str, Any] = {}
    for topic in TOPICS:
        for number in range(topics.partitions(topic)):
            source = TopicPartition(topics.name(topic.word), number)
            groups = ("grouping", "detection", "signals", "store")
            found[f"{source}"] = (log.bounds(source), [log.committed(group, source) for group in groups])
    return found
