"""One reprocessing run: grouping and detection of a span, from its first record to its last, in one thread.

The stages are those of every other way to run Cordon, each driven by its Owner. The kill switch is not among them:
rollout systems obey `live` only, so a run ends with verdicts.
"""

from collections.abc import Callable, Sequence

import msgspec

from deploy.reprocess.span import SpanLog
from detectors.policy import Policies
from detectors.stage import DetectionStage
from detectors.verdict import DecisionWord, Verdict, verdict_decoder
from ingest.clock import Clock
from ingest.events import RolloutNotice, encoder
from ingest.grouping.stage import GroupingSettings, GroupingStage, state_schema_of
from ingest.log.interface import Log, LogError, Record, TopicPartition
from ingest.log.owner import Owner
from ingest.metrics import Metrics
from ingest.rollouts import Rollout, rollout_decoder
from ingest.settings import Settings
from ingest.topics import SOURCE_WORDS, TOPICS, Topics

# Of append time shown at once: partitions stay within it of each other, as they were when it was written.
SLICE_MS = 30_000
# Small reads keep the partitions of one slice close together.
RECORDS_PER_READ_MAX = 64
_NO_EVIDENCE = frozenset({"fences", "installation", "progress", "intake"})


class Concluded(msgspec.Struct, kw_only=True):
    """What a run found of one rollout.

    Attributes:
        verdict: the last one.
        held_ms: event time of the first verdict whose decision was to hold; null without one.
        killed_ms: event time of the first verdict whose decision was to kill; null without one.
        verdicts: how many there were.
    """

    verdict: Verdict
    held_ms: int | None = None
    killed_ms: int | None = None
    verdicts: int = 0


class _AsAppended(GroupingStage):
    """Grouping that takes the records of a slice in the order in which the log got them, both topics together.

    Reads are larger than what came at a time: a crash tick taken a minute ahead of its time looks like late activity.
    """

    def __init__(self, topics: Topics, settings: GroupingSettings, metrics: Metrics) -> None:
        """Begin with nothing taken."""
        super().__init__(topics, settings, metrics)
        self._taken: list[tuple[int, str, int, int, Record]] = []

    def apply(self, source: TopicPartition, records: Sequence[Record]) -> None:
        """Keep the records until the slice is read."""
        self._taken.extend((one.appended_at_ms, source.topic, source.partition, one.offset, one) for one in records)

    def release(self) -> None:
        """Take what was kept; of one moment the activity first, as a gateway writes it."""
        taken, self._taken = self._taken, []
        for _, topic, partition, _, record in sorted(taken):
            super().apply(TopicPartition(topic, partition), [record])


class Reprocess:
    """A run over one span.

    Attributes:
        concluded: what was found, by rollout.
        from_the_middle: partitions of the device topics in which records lie before the span.
        watched_before: rollouts that began before the span and were not closed.
    """

    def __init__(
        self,
        log: Log,
        topics: Topics,
        settings: Settings,
        policies: Policies,
        clock: Clock,
        metrics: Metrics,
        *,
        from_ms: int,
        to_ms: int,
    ) -> None:
        """Prepare the run.

        Args:
            log: holds the source lane and the run's own, whose topics exist and are empty.
            topics: the run's lane and its source.
            settings: those of the installation: partition counts, silence, blindness.
            policies: what evidence is enough for what.
            clock: paces chunks and commits.
            metrics: where the stages count.
            from_ms: when the span begins, by the log's time of append.
            to_ms: when it ends; that moment is outside of it.

        Raises:
            LogError: the lane has records already.
            ValueError: the span is empty, or the lane is its own source.
        """
        if from_ms >= to_ms:
            raise ValueError(f"the span from {from_ms} to {to_ms} ms is empty")
        self._topics = topics
        self._from_ms, self._to_ms = from_ms, to_ms
        self.concluded: dict[str, Concluded] = {}
        _require_empty(log, topics)
        self._source_log = log
        self._log = SpanLog(log, topics, from_ms)
        self.from_the_middle = sum(log.bounds(source)[0] < first for source, first in self._device_sources())
        self._declared_ms: list[int] = []
        self.watched_before = self._read_rollouts()
        self._verdicts_read = {
            TopicPartition(topics.name("verdicts"), number): 0 for number in range(topics.keyed_partitions)
        }
        self._grouping, grouping_owner = self._make_grouping(settings, clock, metrics)
        self._owners = [
            grouping_owner,
            *(self._detection(number, settings, policies, clock, metrics) for number in range(topics.keyed_partitions)),
        ]

    def run(self, progress: Callable[[int], None] | None = None) -> None:
        """Read the span to its end.

        Args:
            progress: told the watermark after each slice.

        Raises:
            LogError: the log can't be read or written.
        """
        for owner in self._owners:
            owner.start()
        self._grouping.generation = self._owners[0].fence.epoch
        self._say_what_is_watched()
        until_ms = self._from_ms
        while until_ms < self._to_ms:
            until_ms = self._next_slice(until_ms)
            self._log.show_until(until_ms)
            self._read_slice()
            self._collect()
            if progress is not None:
                progress(self._grouping.watermark_ms)
        for owner in self._owners:
            owner.stop()

    def _read_slice(self) -> None:
        """Take all that is shown: grouping first, then detection what grouping says of it."""
        for owner in self._owners:
            while owner.step(0.0):
                pass
            if owner is self._owners[0]:
                self._grouping.release()
                # Nothing is left to read: this one only appends what grouping has to say.
                owner.step(0.0)

    def _next_slice(self, until_ms: int) -> int:
        """Return where the next slice ends; a time without any record is passed at once.

        A rollout begins a slice: detection must not know of it before it judges the steps that come after it.
        """
        next_ms = until_ms if until_ms == self._from_ms else self._log.next_ms
        if next_ms is None:
            return self._to_ms
        declared_ms = next((at_ms for at_ms in self._declared_ms if at_ms > until_ms), self._to_ms)
        return min(self._to_ms, declared_ms, max(until_ms, next_ms) + SLICE_MS)

    def _device_sources(self) -> list[tuple[TopicPartition, int]]:
        rollouts = self._topics.name("rollouts")
        return [(source, first) for source, first in self._log.first.items() if source.topic != rollouts]

    def _read_rollouts(self) -> list[Rollout]:
        """Note when rollouts were declared, and return those that were watched when the span began.

        The notices of the latter lie before the span and are not read.
        """
        source = TopicPartition(self._topics.name("rollouts"), 0)
        offset, end = self._source_log.bounds(source)
        known: dict[str, Rollout] = {}
        while offset < end and (records := self._source_log.read(source, offset)):
            for record in records:
                self._declared_ms.append(record.appended_at_ms)
                rollout = rollout_decoder.decode(record.value) if record.value is not None else None
                if rollout is None or rollout.origin_ms >= self._from_ms or not self.from_the_middle:
                    continue
                if rollout.closed and record.appended_at_ms < self._from_ms:
                    known.pop(rollout.rollout, None)
                else:
                    known[rollout.rollout] = rollout
            offset = records[-1].offset + 1
        return list(known.values())

    def _say_what_is_watched(self) -> None:
        for source, first in self._device_sources():
            if source.topic != self._topics.name("activity"):
                continue
            notices = [
                RolloutNotice(
                    rollout=rollout.rollout,
                    vendor=rollout.vendor,
                    product=rollout.product,
                    version=rollout.version,
                    origin_ms=rollout.origin_ms,
                    declared=True if rollout.declared_by else msgspec.UNSET,
                )
                for rollout in self.watched_before
            ]
            records = [Record(first, None, encoder.encode(notice), self._from_ms) for notice in notices]
            self._grouping.apply(source, records)

    def _collect(self) -> None:
        """Take the verdicts said since the last call: the log keeps only the latest of each rollout."""
        for source in self._verdicts_read:
            while records := self._log.read(source, self._verdicts_read[source]):
                for record in records:
                    if record.value is not None:
                        self._conclude(verdict_decoder.decode(record.value))
                self._verdicts_read[source] = records[-1].offset + 1

    def _conclude(self, verdict: Verdict) -> None:
        known = self.concluded.setdefault(verdict.rollout, Concluded(verdict=verdict))
        known.verdict = verdict
        known.verdicts += 1
        if known.held_ms is None and verdict.decision is DecisionWord.HOLD:
            known.held_ms = verdict.at_ms
        if known.killed_ms is None and verdict.decision is DecisionWord.KILL:
            known.killed_ms = verdict.at_ms

    def _make_grouping(self, settings: Settings, clock: Clock, metrics: Metrics) -> tuple[_AsAppended, Owner]:
        numbers = range(self._topics.device_partitions)
        stage = _AsAppended(
            self._topics,
            GroupingSettings(
                partitions=numbers,
                devices_max=settings.devices_max,
                silence_seconds=settings.silence_seconds,
                snapshot_seconds=settings.snapshot_seconds,
                state_schema=state_schema_of(settings.newest_schemas),
            ),
            metrics,
        )
        states = [TopicPartition(self._topics.name("fleet"), number) for number in numbers]
        owner = Owner(
            self._log, "grouping", "grouping", stage, states, clock, records_per_read_max=RECORDS_PER_READ_MAX
        )
        return stage, owner

    def _detection(self, number: int, settings: Settings, policies: Policies, clock: Clock, metrics: Metrics) -> Owner:
        stage = DetectionStage(
            self._topics,
            number,
            policies,
            blind_seconds=settings.blind_seconds,
            silence_seconds=settings.silence_seconds,
            activity_late_seconds=settings.activity_late_seconds,
            snapshot_seconds=settings.snapshot_seconds,
            metrics=metrics,
        )
        state = TopicPartition(self._topics.name("detection"), number)
        return Owner(self._log, f"detection/{number}", "detection", stage, state, clock)


def _require_empty(log: Log, topics: Topics) -> None:
    for topic in TOPICS:
        # Claims and facts of the lane may be there: they say nothing of reports.
        if topic.word in SOURCE_WORDS or topic.word in _NO_EVIDENCE:
            continue
        for partition in range(topics.partitions(topic)):
            if log.bounds(TopicPartition(topics.name(topic.word), partition))[1]:
                raise LogError(
                    f"lane {topics.lane} has been used: {topics.name(topic.word)} holds records. Choose another "
                    f"--lane, or delete that lane's topics first"
                )
