"""Grouping, detection and signals over one in-memory log, with the two device topics fed apart.

The one system helper that knows the product: in lane `live` no HTTP request can hold back one topic behind the other.
"""

from collections.abc import Sequence
from typing import Any

from detectors.policy import Policies
from detectors.stage import DetectionStage
from detectors.verdict import Verdict, verdict_decoder
from ingest.clock import DrivenClock
from ingest.events import encoder
from ingest.grouping.stage import GroupingSettings, GroupingStage
from ingest.log.interface import Entry, Record, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.rollouts import Bound, Ring, Rollout, rollout_id
from ingest.topics import Topics
from signals.events import Switch
from signals.killswitch.stage import SignalsStage
from signals.killswitch.verify import open_event, parse_envelope
from support.switches import KEYS, SIGNER
from support.world import NEW, PRODUCT, T0, VENDOR, World

ROLLOUT = rollout_id(VENDOR, PRODUCT, NEW)
PARTITIONS = 2


class Chain:
    """The stages behind the gateway, driven to a standstill after each append."""

    def __init__(self, policy: dict[str, Any] | None = None) -> None:
        """Start all owners on an empty log, with the built-in policy or another."""
        self.topics = Topics(device_partitions=PARTITIONS)
        self.clock = DrivenClock(T0)
        self.log = MemoryLog(topic_specs(self.topics), self.clock)
        self.world = World(self.topics)
        metrics = Metrics()
        grouping = GroupingStage(
            self.topics, GroupingSettings(range(PARTITIONS), 100_000, silence_seconds=900, snapshot_seconds=60), metrics
        )
        detection = DetectionStage(self.topics, 0, Policies(policy or {}), metrics=metrics)
        signals = SignalsStage(self.log, self.topics, 0, SIGNER, KEYS, self.clock, metrics)
        self._owners = [
            Owner(self.log, "grouping", "grouping", grouping, self._places("fleet", PARTITIONS), self.clock),
            Owner(self.log, "detection/0", "detection", detection, self._places("detection", 1), self.clock),
            Owner(self.log, "signals/0", "signals", signals, self._places("switches", 1), self.clock),
        ]
        for owner in self._owners:
            owner.start()
        grouping.generation = self._owners[0].fence.epoch
        self._grouping = grouping

    @property
    def watermark_ms(self) -> int:
        """The lowest watermark of the device partitions."""
        return self._grouping.watermark_ms

    def _places(self, word: str, count: int) -> list[TopicPartition]:
        return [TopicPartition(self.topics.name(word), number) for number in range(count)]

    def append(self, entries: Sequence[Entry]) -> None:
        """Append, and let every stage read to its end."""
        if entries:
            self.log.append(list(entries))
        moved = True
        while moved:
            moved = False
            for owner in self._owners:
                moved = owner.step(0) or moved

    def declare(self, bound: Bound, rings: Sequence[Ring] = (), pushed: Sequence[int] = (), from_ms: int = T0) -> None:
        """Declare the rollout of `NEW`, as the gateway does: the rollouts topic and every activity partition."""
        rollout = Rollout(
            rollout=ROLLOUT,
            vendor=VENDOR,
            product=PRODUCT,
            update_kind="content",
            version=NEW,
            origin_ms=T0,
            bound=bound,
            rings=list(rings),
            pushed_devices=len(pushed),
        )
        declared = Entry(self.topics.name("rollouts"), 0, ROLLOUT.encode(), encoder.encode(rollout))
        notices = self.world.notices(T0, pushed=pushed, from_ms=from_ms)
        self.append([declared, *notices, *self.world.ticks(T0 + 2000)])

    def _records(self, word: str) -> list[Record]:
        source, found = TopicPartition(self.topics.name(word), 0), list[Record]()
        offset = self.log.bounds(source)[0]
        while records := self.log.read(source, offset):
            found += records
            offset = records[-1].offset + 1
        return found

    def verdict(self) -> Verdict:
        """Return the latest verdict."""
        return verdict_decoder.decode(self._records("verdicts")[-1].value or b"")

    def switches(self) -> list[Switch]:
        """Return the kill switch's events, each verified."""
        return [open_event(parse_envelope(one.value or b""), KEYS).switch for one in self._records("killswitch")]
