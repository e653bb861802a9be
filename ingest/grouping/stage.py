"""Grouping as a stage of the log: records of device topics in, steps of cohort windows out.

One stage holds any set of device partitions: embedded, all of them in one process; on many machines, one each. It is
driven by an Owner, which gives it exactness; it reads no clock and knows neither Kafka nor SQLite.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ingest.deadletter import DeadLetter, DeadReason, entries_of, letter_of
from ingest.events import encoder, product_key
from ingest.grouping.partition import Bounds, Partition
from ingest.grouping.snapshot import STATE_SCHEMA, STATE_SCHEMA_WRITTEN, Snapshots
from ingest.log.interface import Entry, Record, TopicPartition
from ingest.metrics import Metrics
from ingest.outcome import Outcome
from ingest.topics import TOPICS, Topics, keyed_partition_of
from ingest.windows import Step

SNAPSHOT_EVERY_MS = 1000


@dataclass(frozen=True, slots=True)
class GroupingSettings:
    """What the stage is told.

    Attributes:
        partitions: the device partitions it owns.
        devices_max: devices over all partitions of the installation.
        silence_seconds: how long after its last word a device is silent.
        snapshot_seconds: time for one round of chunks.
        state_schema: what chunks are written in; any that is known is read.
    """

    partitions: Sequence[int]
    devices_max: int
    silence_seconds: int
    snapshot_seconds: int
    state_schema: int = STATE_SCHEMA_WRITTEN


def state_schema_of(newest: bool) -> int:
    """Return the schema to write state in, as the setting `newest_schemas` says."""
    return STATE_SCHEMA if newest else STATE_SCHEMA_WRITTEN


class GroupingStage:
    """The grouping of some device partitions, as the Owner drives it."""

    def __init__(self, topics: Topics, settings: GroupingSettings, metrics: Metrics) -> None:
        """Make the partitions; they are empty until restored or fed."""
        self._topics = topics
        self._settings = settings
        self._metrics = metrics
        self.generation = 0
        self._dead: list[DeadLetter] = []
        self._steps: list[Step] = []
        self._snapshot_at_ms = 0
        self._partitions: dict[int, Partition] = {}
        self._snapshots: dict[int, Snapshots] = {}
        self._words = {topics.name(word): word for word in ("activity", "crashes")}
        count = topics.device_partitions
        for number in settings.partitions:
            bounds = Bounds(number, count, max(1, settings.devices_max // count), settings.silence_seconds)
            self._partitions[number] = Partition(bounds, self._bad_in(number))
            self._snapshots[number] = Snapshots(self._partitions[number], settings.state_schema)
        cohorts = next(topic for topic in TOPICS if topic.word == "cohorts")
        self._keyed = topics.partitions(cohorts)

    @property
    def partitions(self) -> Mapping[int, Partition]:
        """The partitions by number."""
        return self._partitions

    @property
    def inputs(self) -> Sequence[TopicPartition]:
        """Both device topics of every partition."""
        return [TopicPartition(topic, number) for number in self._partitions for topic in self._words]

    @property
    def watermark_ms(self) -> int:
        """The lowest watermark of the partitions: everything received before it was counted and said."""
        return min(partition.population.memory.watermark_ms for partition in self._partitions.values())

    def wants(self) -> Sequence[TopicPartition]:
        """Return the inputs to read now: one that ran far ahead of its twin waits."""
        return [
            TopicPartition(self._topics.name(word), number)
            for number, partition in self._partitions.items()
            for word in partition.wanted()
        ]

    def restore(self, entries: Iterable[tuple[bytes, bytes]]) -> Mapping[TopicPartition, int]:
        """Load the state of all partitions from the fleet topic's entries.

        Raises:
            StateError: the state is of a schema this version does not read, or is not whole.
        """
        positions: dict[TopicPartition, int] = {}
        named = ((int(number), rest, value) for number, rest, value in map(_split, entries))
        for number, own in itertools.groupby(named, key=lambda entry: entry[0]):
            if number in self._partitions:
                found = self._snapshots[number].load((rest, value) for _, rest, value in own)
                positions.update({TopicPartition(self._topics.name(w), number): offset for w, offset in found.items()})
        return positions

    def apply(self, source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of one device topic's partition, and make the steps they allow."""
        partition = self._partitions[source.partition]
        read = partition.read_activity if self._words[source.topic] == "activity" else partition.read_crashes
        for record in records:
            read(record)
        self._steps.extend(partition.advance())

    def outputs(self) -> Sequence[Entry]:
        """Return the steps to be said, to every partition of the cohort topic, and dead letters."""
        if not self._steps and not self._dead:
            return []
        entries = entries_of(self._dead, self._topics.name("deadletter"), self._metrics)
        self._dead.clear()
        for step in self._steps:
            step.generation = self.generation
            for keyed in range(self._keyed):
                entries.append(self._said_to(keyed, step))
        self._steps = []
        self._report()
        return entries

    def _said_to(self, keyed: int, step: Step) -> Entry:
        windows = step.windows
        if self._keyed > 1:
            windows = [w for w in windows if keyed_partition_of(product_key(w.vendor, w.product), self._keyed) == keyed]
            step = msgspec.structs.replace(step, windows=windows)
        return Entry(self._topics.name("cohorts"), keyed, None, encoder.encode(step))

    def snapshot(self, now_ms: int) -> Sequence[Entry]:
        """Return the share of state entries due at `now_ms`, at most once a second."""
        elapsed = now_ms - self._snapshot_at_ms
        if self._snapshot_at_ms and elapsed < SNAPSHOT_EVERY_MS:
            return []
        part = min(1.0, elapsed / 1000 / self._settings.snapshot_seconds) if self._snapshot_at_ms else 0.0
        self._snapshot_at_ms = now_ms
        topic = self._topics.name("fleet")
        return [
            Entry(topic, number, key, value)
            for number, snapshots in self._snapshots.items()
            for key, value in snapshots.share(part)
        ]

    def whole(self) -> Iterator[Entry]:
        """Yield the whole state, every chunk of it: to copy it, or to measure its loading."""
        topic = self._topics.name("fleet")
        for number, snapshots in self._snapshots.items():
            for key, value in snapshots.share(1.0):
                yield Entry(topic, number, key, value)

    def oldest(self) -> Mapping[TopicPartition, int]:
        """Return the offsets that every chunk written so far has passed."""
        return {
            TopicPartition(self._topics.name(word), number): offset
            for number, snapshots in self._snapshots.items()
            for word, offset in snapshots.oldest().items()
        }

    def _bad_in(self, number: int) -> "_BadRecords":
        return _BadRecords(self._topics, number, self._dead)

    def _report(self) -> None:
        for number, partition in self._partitions.items():
            name = str(number)
            self._metrics.set("watermark_ms", partition.population.memory.watermark_ms, partition=name)
            self._metrics.set("fleet_devices", partition.population.fleet.devices, partition=name)
            self._metrics.set("crashes_pending", partition.crashes.pending, partition=name)
            for outcome, amount in partition.population.outcomes.items():
                if amount:
                    self._metrics.count("grouped_total", amount, outcome=Outcome(outcome).value)
            partition.population.outcomes.clear()


def _split(entry: tuple[bytes, bytes]) -> tuple[str, list[str], bytes]:
    number, *rest = entry[0].decode().split("/")
    return number, rest, entry[1]


class _BadRecords:
    """Makes dead letters of one partition's records that can't be used."""

    def __init__(self, topics: Topics, number: int, dead: list[DeadLetter]) -> None:
        self._topics = topics
        self._number = number
        self._dead = dead

    def __call__(self, word: str, record: Record, reason: DeadReason, detail: str) -> None:
        source = TopicPartition(self._topics.name(word), self._number)
        self._dead.append(letter_of("grouping", source, record, reason, detail))
