"""Detection as a stage of the log: cohort windows and rollouts in, verdicts out.

Driven by an Owner, which gives it exactness. Steps of all device partitions are put in one order (`merge`), each
rollout's tracker scores its part, and a pure function decides. The invariant: the same records give the same verdicts,
however the partitions' records interleave, and a restart from any snapshot goes on byte for byte.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from detectors.attribution import AttributorState
from detectors.chunks import STAGE, StateError, gather, join, pack
from detectors.merge import MergerState, StepMerger
from detectors.policy import Policies
from detectors.situation import Situation
from detectors.speaker import Said, Speaker
from detectors.suspicion import Suspicion
from detectors.tracker import Tracker
from detectors.tracker_state import TrackerState
from detectors.verdict import Verdict
from detectors.watchlist import ROLLOUTS_MAX, Watchlist, WatchlistState
from ingest.deadletter import DeadReason, entries_of, letter_of
from ingest.events import UNREADABLE_ERRORS, encoder, product_key
from ingest.log.interface import Entry, Record, TopicPartition
from ingest.metrics import Metrics
from ingest.rollouts import Rollout, rollout_decoder
from ingest.topics import Topics, keyed_partition_of
from ingest.windows import CohortWindow, Step, step_decoder

# How often the rollouts topic is asked for a rollout that a window names before it is taken as undeclared.
_ASKS_MAX: Final = 3


class RolloutState(msgspec.Struct, kw_only=True):
    """One rollout's chunk: its tracker, and what was said of it last."""

    tracker: TrackerState
    said: Said


class StageState(msgspec.Struct, kw_only=True):
    """The stage's own chunk.

    Attributes:
        offsets: next offset by `topic/partition`.
        manifest: rollout to (writing, pieces) of its chunks.
        watched: what the rollouts under watch have in common.
        named: whom attribution has named.
    """

    merger: MergerState
    offsets: dict[str, int]
    manifest: dict[str, tuple[int, int]]
    situation: Situation
    writing: int
    watched: WatchlistState
    named: AttributorState


_stage_decoder = msgspec.msgpack.Decoder(StageState)
_rollout_decoder = msgspec.msgpack.Decoder(RolloutState)


class DetectionStage:
    """Detection over one partition of the cohort topic, as the Owner drives it.

    Args:
        topics: the lane's topics.
        partition: which partition of the keyed topics (cohorts, detection) this stage owns.
        policies: what evidence is enough for what.
        blind_seconds: how far a device partition may fall behind before it is left out.
        silence_seconds: the overdue time grouping works with.
        activity_late_seconds: how far activity may lag behind crashes where the policy does not say.
        snapshot_seconds: wall-clock time between snapshots; 0 for one after every step.
        rollouts_max: how many rollouts are watched at once.
        metrics: where to count; None for nowhere.
    """

    def __init__(
        self,
        topics: Topics,
        partition: int,
        policies: Policies,
        *,
        blind_seconds: float = 10.0,
        silence_seconds: float = 900.0,
        activity_late_seconds: float = 30.0,
        snapshot_seconds: float = 60.0,
        rollouts_max: int = ROLLOUTS_MAX,
        metrics: Metrics | None = None,
    ) -> None:
        self._topics = topics
        self._partition = partition
        self._snapshot_ms = int(snapshot_seconds * 1000)
        self._metrics = metrics if metrics is not None else Metrics()
        self._cohorts = TopicPartition(topics.name("cohorts"), partition)
        self._rollouts = TopicPartition(topics.name("rollouts"), 0)
        self._merger = StepMerger(topics.device_partitions, blind_seconds)
        limits = (policy.activity_late_seconds for policy in policies.all())
        self._speaker = Speaker(activity_late_seconds, [limit for limit in limits if limit is not None])
        self._suspicion = Suspicion(policies.default)
        self._trackers = Watchlist(policies, silence_seconds, rollouts_max)
        self._offsets: dict[TopicPartition, int] = {}
        self._written: dict[TopicPartition, int] = {}
        self._manifest: dict[str, tuple[int, int]] = {}
        self._changed: set[str] = set()
        self._writing = 0
        self._snapshot_at_ms: int | None = None
        self._asks = 0
        self._waits = False
        self._out: list[Entry] = []

    @property
    def inputs(self) -> Sequence[TopicPartition]:
        """The rollouts, and this partition's cohort windows."""
        return (self._rollouts, self._cohorts)

    @property
    def merged_ms(self) -> int:
        """Everything received before this time is scored, but for device partitions that are left out."""
        return self._merger.merged_ms

    def wants(self) -> Sequence[TopicPartition]:
        """Return the rollouts first; alone while a window names one that was not read yet."""
        return (self._rollouts,) if self._waits else self.inputs

    def apply(self, source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of one input, in order."""
        for record in records:
            if record.value is None:
                continue
            try:
                if source == self._rollouts:
                    self._declare(rollout_decoder.decode(record.value))
                else:
                    self._take(step_decoder.decode(record.value), record.appended_at_ms)
            except (*UNREADABLE_ERRORS, IndexError) as error:
                self._dead_letter(source, record, error)
        self._offsets[source] = records[-1].offset + 1
        if source == self._rollouts:
            self._asks = 0
            self._advance()

    def _take(self, step: Step, append_ms: int) -> None:
        if self._merger.offer(step, append_ms):
            self._speaker.seen()
            self._advance()
        elif self._merger.advise(step):
            # Activity stands still while crashes come: no step will say so until it has caught up.
            self._speaker.seen()
            if self._speaker.situate(self._merger.merged_ms, self._merger.partitions):
                for tracker in self._trackers.values():
                    self._say(tracker, always=True)

    def outputs(self) -> Sequence[Entry]:
        """Hand over the verdicts and dead letters that are due."""
        if self._waits:
            self._asks += 1
            self._advance()
        out, self._out = self._out, []
        return out

    def blind(self, now_ms: int) -> None:
        """Say of every rollout that no telemetry comes any more; the shell calls this, by the wall clock.

        Said once when it begins, and once a minute while it lasts; the next step ends it.

        Args:
            now_ms: the wall clock.
        """
        if self._speaker.go_blind(now_ms):
            for tracker in self._trackers.values():
                self._say(tracker, always=True)

    def doubt(self, unsure: Sequence[str]) -> None:
        """Take which parts of Cordon are not heard from or are behind; the shell calls this, empty when all is well.

        Steps that do come still are evidence, and may hold or kill; but nothing is called healthy meanwhile.
        """
        if self._speaker.doubt(unsure):
            for tracker in self._trackers.values():
                self._say(tracker, always=True)

    def _declare(self, rollout: Rollout) -> None:
        product = product_key(rollout.vendor, rollout.product)
        if keyed_partition_of(product, self._topics.keyed_partitions) != self._partition:
            return
        tracker = self._trackers.get(rollout.rollout)
        if rollout.closed:
            self._close(rollout.rollout)
        elif tracker is not None:
            self._trackers.declare(tracker, rollout)
            self._changed.add(rollout.rollout)
        else:
            self._watch(rollout)

    def _watch(self, first: Rollout | CohortWindow) -> None:
        oldest = self._trackers.least_needed()
        if oldest is not None:
            self._close(oldest)
        self._trackers.watch(first, self._merger.partitions, self._merger.merged_ms)
        self._changed.add(first.rollout)
        self._speaker.watch(first.rollout)
        self._metrics.set("rollouts_watched", len(self._trackers))

    def _close(self, rollout: str) -> None:
        self._trackers.close(rollout)
        self._speaker.forget(rollout)
        self._suspicion.close(rollout)
        self._changed.discard(rollout)
        self._metrics.set("rollouts_watched", len(self._trackers))

    def _advance(self) -> None:
        while group := self._merger.head():
            self._waits = self._asks < _ASKS_MAX and any(
                window.rollout not in self._trackers and not self._trackers.over(window.rollout)
                for step in group
                for window in step.windows
            )
            if self._waits:
                return
            self._merge(group, self._merger.take(group))
        self._waits = False
        self._asks = 0

    def _merge(self, group: Sequence[Step], gapped: Sequence[int]) -> None:
        at_ms = self._merger.merged_ms
        parts = self._merger.partitions
        by_rollout: dict[str, list[tuple[Step, CohortWindow]]] = {}
        for step in group:
            for window in step.windows:
                if not self._trackers.over(window.rollout):
                    if window.rollout not in self._trackers:
                        self._watch(window)
                    by_rollout.setdefault(window.rollout, []).append((step, window))
        changed = self._speaker.situate(at_ms, parts)
        if changed or gapped:
            for tracker in self._trackers.values():
                for number, one in enumerate(parts):
                    tracker.counts.set_live(number, one.live, at_ms)
                for number in gapped:
                    tracker.counts.lose(number)
            self._changed.update(self._trackers)
        due = self._trackers if changed or gapped else self._speaker.due(at_ms)
        for rollout in (*by_rollout, *(name for name in list(due) if name not in by_rollout)):
            tracker = self._trackers[rollout]
            before = tracker.revision
            self._process(tracker, at_ms, by_rollout.get(rollout, []))
            if any(window.full for _, window in by_rollout.get(rollout, [])):
                self._suspicion.note(tracker)
            if tracker.revision != before:
                judged, news = self._suspicion.judge(self._trackers, rollout)
                self._changed.update(judged)
                for other in news:
                    self._say(self._trackers[other], always=True)
            self._say(tracker, always=changed or bool(gapped))
        for window in (window for items in by_rollout.values() for _, window in items):
            for crash in window.crashes:
                self._trackers.shared.known.note(crash.signature, crash.group, crash.at_ms)

    def _process(self, tracker: Tracker, at_ms: int, items: Sequence[tuple[Step, CohortWindow]]) -> None:
        self._changed.add(tracker.rollout)
        if tracker.failed:
            return
        crashed = any(window.crashes for _, window in items)
        shock = crashed and self._trackers.shaken(tracker, at_ms)
        try:
            if crashed:
                self._suspicion.prepare(self._trackers, tracker.rollout)
            tracker.process(at_ms, items, shock)
        except Exception as error:
            tracker.failed = f"{type(error).__name__}: {error}"
        if crashed:
            self._trackers.crashed(tracker)

    def _say(self, tracker: Tracker, *, always: bool) -> None:
        steps = [one.taken_ms for one in self._merger.partitions]
        verdict = self._speaker.say(tracker, steps, always=always)
        if verdict is not None:
            self._changed.add(tracker.rollout)
            self._put(verdict)

    def _put(self, verdict: Verdict) -> None:
        partition = keyed_partition_of(verdict.rollout, self._topics.keyed_partitions)
        entry = Entry(self._topics.name("verdicts"), partition, verdict.rollout.encode(), encoder.encode(verdict))
        self._out.append(entry)
        self._metrics.count("verdicts_total", verdict=verdict.verdict.value, decision=verdict.decision.value)

    def _dead_letter(self, source: TopicPartition, record: Record, error: Exception) -> None:
        letter = letter_of("detection", source, record, DeadReason.UNREADABLE, str(error))
        self._out += entries_of([letter], self._topics.name("deadletter"), self._metrics)

    def restore(self, entries: Iterable[tuple[bytes, bytes]]) -> Mapping[TopicPartition, int]:
        """Load the state; see `Stateful.restore`.

        Raises:
            StateError: the state is not whole, or of a schema this version does not read.
        """
        found = gather(entries)
        if not found:
            return {}
        state = _stage_decoder.decode(join(STAGE, found.get(STAGE, {})))
        self._merger.restore(state.merger)
        self._suspicion.load(state.named)
        self._trackers.load(state.watched)
        for rollout, (writing, _) in state.manifest.items():
            kept = _rollout_decoder.decode(join(rollout, found.get(rollout, {}), writing))
            self._trackers.restore(kept.tracker)
            self._speaker.watch(rollout, kept.said)
        # Who was not heard from before the restart is not known now: the shell says it again.
        self._speaker.situation = msgspec.structs.replace(state.situation, unsure=())
        self._manifest, self._writing = state.manifest, state.writing
        by_name = {_name(source): source for source in self.inputs}
        if not set(state.offsets) <= set(by_name):
            raise StateError(f"the state has read {sorted(state.offsets)}, this stage reads {sorted(by_name)}")
        self._offsets = {by_name[name]: offset for name, offset in state.offsets.items()}
        self._written = dict(self._offsets)
        return dict(self._offsets)

    def snapshot(self, now_ms: int) -> Sequence[Entry]:
        """Return all chunks that changed, at most once in `snapshot_seconds`; see `chunks`."""
        if self._snapshot_at_ms is not None and now_ms - self._snapshot_at_ms < self._snapshot_ms:
            return []
        self._snapshot_at_ms = now_ms
        self._writing += 1
        offsets = {_name(source): offset for source, offset in self._offsets.items()}
        pairs: list[tuple[bytes, bytes | None]] = []
        manifest = {name: kept for name, kept in self._manifest.items() if name in self._trackers}
        for name in sorted(self._changed):
            tracker = self._trackers[name]
            kept = RolloutState(tracker=tracker.snapshot(), said=self._speaker.said(name))
            packed = pack(name, kept, self._writing, offsets)
            pairs += packed
            manifest[name] = self._writing, len(packed)
        for name, (_, pieces) in self._manifest.items():
            left = manifest[name][1] if name in manifest else 0
            pairs += [(f"{name}/{index}".encode(), None) for index in range(left, pieces)]
        self._manifest = manifest
        self._changed.clear()
        pairs += pack(STAGE, self._own_state(offsets), self._writing, offsets)
        self._written = dict(self._offsets)
        topic = self._topics.name("detection")
        return [Entry(topic, self._partition, key, value) for key, value in pairs]

    def _own_state(self, offsets: dict[str, int]) -> StageState:
        return StageState(
            merger=self._merger.snapshot(),
            offsets=offsets,
            manifest=self._manifest,
            situation=self._speaker.situation,
            writing=self._writing,
            watched=self._trackers.snapshot(),
            named=self._suspicion.snapshot(),
        )

    def oldest(self) -> Mapping[TopicPartition, int]:
        """Return the offsets of the last snapshot handed over: all its chunks speak of the same."""
        return dict(self._written)


def _name(source: TopicPartition) -> str:
    return f"{source.topic}/{source.partition}"
