"""Steps of all device partitions in one order: what makes verdicts independent of how records interleave.

A step is handed on when every live partition's watermark has passed it; steps are handed on by watermark, then by
partition. So any interleaving of the partitions' records gives the same sequence of merged steps.

A partition that falls behind must not blind the others. Which ones are left out is decided by the log's time of append,
never by the reader's clock: a partition is left out while it lags by more than `blind_seconds` of event time *and* is
not yet where the foremost one was `blind_seconds` of append time ago. A replay at any speed therefore leaves out only
those that were really blind, and reading the log again leaves out the same ones.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from ingest.windows import Step

# Steps waiting for a slower partition; beyond it the slow ones are left out at once, so memory stays bounded.
PENDING_MAX: Final = 65_536
_SAMPLES_PER_BLINDNESS: Final = 16


class PartitionState(msgspec.Struct, kw_only=True):
    """What is known of one device partition.

    Attributes:
        watermark_ms: of the last step read from the log.
        taken_ms: of the last step merged.
        generation: the highest owner's generation heard.
        late_ms: how far activity lagged behind crashes in the last step merged.
        live: whether the merge waits for it and counts it.
        gap_ms: watermark of the last step that did not follow on the one held, 0 without one.
        gaps: how many such steps there were.
        ignored: stale or repeated steps that were ignored.
        pending: crashes read that are not yet evidence.
    """

    watermark_ms: int = 0
    taken_ms: int = 0
    generation: int = -1
    late_ms: int = 0
    live: bool = True
    gap_ms: int = 0
    gaps: int = 0
    ignored: int = 0
    pending: int = 0


class MergerState(msgspec.Struct, kw_only=True):
    """What `StepMerger.snapshot` gives."""

    partitions: list[PartitionState]
    samples: list[tuple[int, int]]
    pending: list[Step]
    merged_ms: int
    foremost_ms: int
    append_ms: int


class StepMerger:
    """Orders the steps of `partitions` device partitions."""

    def __init__(self, partitions: int, blind_seconds: float, pending_max: int = PENDING_MAX) -> None:
        self.partitions = [PartitionState() for _ in range(partitions)]
        self.merged_ms = 0
        self._foremost_ms = 0
        self._append_ms = 0
        self._blind_ms = int(blind_seconds * 1000)
        self._pending_max = pending_max
        self._pending: list[deque[Step]] = [deque() for _ in range(partitions)]
        self._waiting = 0
        self._samples: deque[tuple[int, int]] = deque()

    @property
    def left_out(self) -> list[int]:
        """The partitions that the merge does not wait for now."""
        return [number for number, one in enumerate(self.partitions) if not one.live]

    def offer(self, step: Step, append_ms: int) -> bool:
        """Take a step in the order of the log; tell whether it is new.

        Args:
            step: a step of one of the partitions.
            append_ms: the log's time of append, which paces blindness.

        Raises:
            IndexError: the partition number is not one of this installation's.
        """
        if not 0 <= step.partition < len(self.partitions):
            raise IndexError(
                f"step of partition {step.partition}, but this installation has {len(self.partitions)}: "
                f"device_partitions was changed, which it must never be"
            )
        one = self.partitions[step.partition]
        if step.generation < one.generation or step.watermark_ms <= one.watermark_ms:
            one.ignored += 1
            return False
        one.generation = step.generation
        one.watermark_ms = step.watermark_ms
        self._pending[step.partition].append(step)
        self._waiting += 1
        self._foremost_ms = max(self._foremost_ms, step.watermark_ms)
        self._judge(append_ms)
        return True

    def advise(self, step: Step) -> bool:
        """Take a step that does not move its partition: it only says how far crashes were read ahead of activity.

        Returns:
            Whether it says something of where the partition stands now.
        """
        one = self.partitions[step.partition]
        current = step.generation >= one.generation and step.since_ms == step.watermark_ms == one.taken_ms
        if not current or self._pending[step.partition]:
            return False
        one.late_ms, one.pending = step.crash_watermark_ms - step.watermark_ms, step.pending
        return True

    def head(self) -> list[Step]:
        """Return, without taking them, the steps of the next watermark that every live partition has passed."""
        merged = min((one.watermark_ms for one in self.partitions if one.live), default=0)
        heads = [queue[0] for queue in self._pending if queue and queue[0].watermark_ms <= merged]
        if not heads:
            return heads
        first = min(step.watermark_ms for step in heads)
        return [step for step in heads if step.watermark_ms == first]

    def take(self, group: Sequence[Step]) -> list[int]:
        """Take the steps that `head` returned; return the partitions among them whose chain has a gap here."""
        gapped = []
        for step in group:
            one = self.partitions[step.partition]
            self._pending[step.partition].popleft()
            if step.since_ms != one.taken_ms:
                one.gaps += 1
                one.gap_ms = step.watermark_ms
                gapped.append(step.partition)
            one.taken_ms = step.watermark_ms
            one.late_ms = step.crash_watermark_ms - step.watermark_ms
            one.pending = step.pending
            self.merged_ms = max(self.merged_ms, step.watermark_ms)
        self._waiting -= len(group)
        return gapped

    def _judge(self, append_ms: int) -> None:
        self._append_ms = max(self._append_ms, append_ms)
        grain_ms = self._blind_ms // _SAMPLES_PER_BLINDNESS
        if not self._samples or self._append_ms - self._samples[-1][0] >= grain_ms:
            self._samples.append((self._append_ms, self._foremost_ms))
        while len(self._samples) > 1 and self._samples[1][0] <= self._append_ms - self._blind_ms:
            self._samples.popleft()
        told_ms, foremost_then = self._samples[0]
        if told_ms > self._append_ms - self._blind_ms:
            foremost_then = 0
        if self._waiting > self._pending_max:
            foremost_then = self._foremost_ms
        for one in self.partitions:
            one.live = one.watermark_ms >= min(foremost_then, self._foremost_ms - self._blind_ms)

    def snapshot(self) -> MergerState:
        """Return the state; `restore` of it goes on alike."""
        return MergerState(
            partitions=self.partitions,
            samples=list(self._samples),
            pending=[step for queue in self._pending for step in queue],
            merged_ms=self.merged_ms,
            foremost_ms=self._foremost_ms,
            append_ms=self._append_ms,
        )

    def restore(self, state: MergerState) -> None:
        """Load a snapshot.

        Raises:
            ValueError: it was taken with another number of partitions.
        """
        if len(state.partitions) != len(self.partitions):
            raise ValueError(
                f"the state has {len(state.partitions)} device partitions, the installation {len(self.partitions)}: "
                f"set device_partitions back, or start a new lane"
            )
        self.partitions = state.partitions
        self.merged_ms = state.merged_ms
        self._foremost_ms, self._append_ms = state.foremost_ms, state.append_ms
        self._samples = deque(state.samples)
        self._pending = [deque() for _ in self.partitions]
        for step in state.pending:
            self._pending[step.partition].append(step)
        self._waiting = len(state.pending)
