"""The Owner: exactness for every stateful stage, in one place.

Grouping, detection and signals each run their stage inside an Owner. It claims a fence, loads the stage's state from a
compacted topic, seeks to the offsets *in that state*, and then reads, applies, and appends outputs and state chunks.
The source log is the delta between chunks, so a stage is exact after a SIGKILL at any moment.

Invariants:
    - Nobody else writes: the fence is claimed before the state is read, so what is read is all there will ever be.
    - Nothing is skipped: a position that the log can no longer serve, or has not reached yet, is a `GapError`.
    - Outputs come before the chunks that know of them, in one atomic append. A step that wrote outputs but whose chunk
      is not written yet is applied again after a crash, so an output must be harmless when it comes twice: the
      stage gives it an identity or makes it absolute (a cohort window replaces the one before).
    - Commits trail the oldest chunk. They are for lag and for people to see; the state's own offsets are what counts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from ingest.clock import Clock
from ingest.log.interface import (
    Entry,
    Fence,
    FencedError,
    Log,
    LogError,
    LogUnavailableError,
    OffsetGoneError,
    Record,
    TopicPartition,
)

RECORDS_PER_READ_MAX = 256
BYTES_PER_READ_MAX = 8 << 20
COMMIT_SECONDS = 5.0


class GapError(LogError):
    """Records that the state needs are not in the log: counting on would be counting wrong."""


class Stateful(Protocol):
    """A stage with a state, as the Owner drives it; called from one thread only.

    `apply` must not raise for bad data: it dead-letters through `outputs`. If any method raises, the Owner stops with
    that error and writes nothing more, so the state in the log is untouched and a restart applies the same records.
    """

    @property
    def inputs(self) -> Sequence[TopicPartition]:
        """The partitions this stage reads."""
        ...

    def restore(self, entries: Iterable[tuple[bytes, bytes]]) -> Mapping[TopicPartition, int]:
        """Load the latest entry of each key, in the order written, one state partition after another; read it once.

        Returns:
            The offset to read next from each input. A missing one is read from the first offset available.
        """
        ...

    def apply(self, source: TopicPartition, records: Sequence[Record]) -> None:
        """Take records of one input, in order."""
        ...

    def outputs(self) -> Sequence[Entry]:
        """Hand over what must be appended now; each entry is handed over once."""
        ...

    def snapshot(self, now_ms: int) -> Sequence[Entry]:
        """Return the share of state chunks due at `now_ms` (round-robin, about once a minute); often none."""
        ...

    def oldest(self) -> Mapping[TopicPartition, int]:
        """Return, per input, the offset that every chunk handed over so far has passed: what may be committed."""
        ...


@runtime_checkable
class ChoosesInputs(Protocol):
    """Optional for a stage: it says which inputs it wants next, for instance to read two of them in lockstep."""

    def wants(self) -> Sequence[TopicPartition]:
        """Return the inputs to read now, most wanted first; the others stay unread. None of them: read nothing.

        Asked again after each `apply`, so at most one read (`RECORDS_PER_READ_MAX`) is taken on one answer.
        """
        ...


class Owner:
    """Drives one stage over its inputs; one thread calls `start`, `step` and `stop`."""

    def __init__(
        self,
        log: Log,
        name: str,
        group: str,
        stage: Stateful,
        state: TopicPartition | Sequence[TopicPartition] | None,
        clock: Clock,
        *,
        records_per_read_max: int = RECORDS_PER_READ_MAX,
        bytes_per_read_max: int = BYTES_PER_READ_MAX,
        commit_seconds: float = COMMIT_SECONDS,
        fence_outputs: bool = True,
    ) -> None:
        """Prepare; nothing is read or claimed before `start`.

        Args:
            log: where inputs, state and outputs live.
            name: the fence's name, one for each share of the work, for instance `grouping/3`.
            group: whose committed offsets these are.
            stage: what is driven.
            state: the compacted partition with the stage's chunks, or several where one stage has shares of its own in
                each. None: the stage has no state, and goes on from what it committed, so its `oldest` decides what is
                read again.
            clock: stamps snapshots and paces commits.
            records_per_read_max: bound of one read of one input.
            bytes_per_read_max: bound of one read of one input.
            commit_seconds: at most one commit in this time.
            fence_outputs: False for a stage whose outputs readers tell from a stale owner's by themselves, as cohort
                windows by their generation: they are appended before the chunks and without the fence, which on Kafka
                saves a transaction a step.
        """
        self._log = log
        self._name = name
        self._group = group
        self._stage = stage
        self._chooser = stage if isinstance(stage, ChoosesInputs) else None
        self._state: Sequence[TopicPartition] = (
            () if state is None else (state,) if isinstance(state, TopicPartition) else tuple(state)
        )
        self._clock = clock
        self._records_per_read_max = records_per_read_max
        self._bytes_per_read_max = bytes_per_read_max
        self._commit_ms = int(commit_seconds * 1000)
        self._fence_outputs = fence_outputs
        self._fence: Fence | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._flushed: dict[TopicPartition, int] = {}
        self._said: dict[TopicPartition, int] = {}
        self._newest_ms = 0
        self._pending_outputs: list[Entry] = []
        self._pending: list[Entry] = []
        self._pending_oldest: dict[TopicPartition, int] = {}
        self._written_oldest: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._committed_at_ms = 0
        self._restored: Mapping[TopicPartition, int] | None = None
        self._beats = 0
        self._turn = 0
        self._stopped_by: BaseException | None = None

    @property
    def fence(self) -> Fence:
        """The claim this owner writes under; its epoch is the owner's generation.

        Raises:
            LogError: the owner was not started.
        """
        if self._fence is None:
            raise LogError(f"owner {self._name} is not started: call start() first")
        return self._fence

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """The offset to be read next from each input."""
        return dict(self._positions)

    @property
    def flushed(self) -> Mapping[TopicPartition, int]:
        """The offset before which everything of each input is applied and what came of it appended; any thread."""
        return self._flushed

    @property
    def said(self) -> Mapping[TopicPartition, int]:
        """The offset behind the newest record appended to each partition since the start; any thread."""
        return self._said

    @property
    def newest_ms(self) -> int:
        """The log's time of append of the newest record read, in milliseconds since the epoch; 0: none yet."""
        return self._newest_ms

    @property
    def beats(self) -> int:
        """Grows while this owner gets on: with what it loads, reads, applies and appends; any thread."""
        return self._beats

    def start(self) -> None:
        """Claim the fence, load the state, and seek to its offsets.

        Raises:
            GapError: the log lacks records that the state needs.
            LogUnavailableError: the log cannot be read; start again. With one partition of state the same owner can be
                started again: it keeps its claim, and the stage was given nothing. With several, make a new stage.
        """
        if self._fence is None:
            self._fence = self._log.claim(self._name)
        if self._restored is None:
            self._restored = self._stage.restore(self._state_entries())
        restored = self._restored
        self._positions = {source: self._position(source, restored.get(source)) for source in self._stage.inputs}
        self._flushed = dict(self._positions)
        self._committed_at_ms = self._clock.now_ms()

    def step(self, timeout_seconds: float) -> bool:
        """Wait for records up to `timeout_seconds`, apply what is there (bounded), append what the stage has to say.

        Returns:
            True if records were applied; False when there were none.

        Raises:
            FencedError: another owner lives; this one is finished for good.
            GapError: records were lost before they were read; this owner is finished.
            LogUnavailableError: nothing was lost: what had to be appended is kept, and the next step tries it again.
        """
        fence = self.fence
        if self._stopped_by is not None:
            raise self._stopped_by
        try:
            self._flush(fence)
            applied = self._read_and_apply(timeout_seconds)
            self._gather()
            self._flush(fence)
            self._commit(fence)
        except LogUnavailableError:
            raise
        except BaseException as error:
            self._stopped_by = error
            raise
        return applied

    def backlog(self) -> dict[TopicPartition, int]:
        """Return how many offsets lie between what was read and the end, per input; callable from any thread."""
        return {
            source: max(0, self._log.bounds(source)[1] - position) for source, position in dict(self._positions).items()
        }

    def stop(self, *, flush: bool = True) -> None:
        """End this owner; the fence stays claimed until another claims it.

        Args:
            flush: write pending outputs and the chunks due, and commit, before ending. Without it, a restart applies
                again what was not written, to the same effect.
        """
        if self._stopped_by is not None or self._fence is None:
            return
        try:
            if flush:
                self._flush(self._fence)
                self._gather()
                self._flush(self._fence)
                self._committed_at_ms = self._clock.now_ms() - self._commit_ms
                self._commit(self._fence)
        finally:
            self._stopped_by = LogError(f"owner {self._name} was stopped: make a new one")

    def _state_entries(self) -> Iterator[tuple[bytes, bytes]]:
        for state in self._state:
            yield from self._entries_of(state)

    def _entries_of(self, state: TopicPartition) -> Iterator[tuple[bytes, bytes]]:
        latest: dict[bytes, bytes] = {}
        offset, end = self._log.bounds(state)
        while offset < end:
            records = self._read_at(state, offset)
            if not records:
                break
            for record in records:
                if record.key is None:
                    continue
                # Taken out and put back, so that the order is that of the last writing.
                latest.pop(record.key, None)
                if record.value is not None:
                    latest[record.key] = record.value
            offset = records[-1].offset + 1
        # Values are let go as they are handed over: the compressed state is not held beside the restored one.
        for key in list(latest):
            self._beats += 1
            yield key, latest.pop(key)

    def _position(self, source: TopicPartition, restored: int | None) -> int:
        first, end = self._log.bounds(source)
        committed = self._log.committed(self._group, source)
        needed = restored
        if needed is None and not self._state:
            needed = committed
        if needed is None:
            if committed is not None and first > 0:
                raise GapError(
                    f"{self._name}: {self._group} committed {source} at {committed} but its state knows nothing of it, "
                    f"and the records before {first} have passed their retention. Restore the state topic "
                    f"{', '.join(map(str, self._state))} from a backup, or start a new lane."
                )
            return first
        if needed < first:
            raise GapError(self._gap(source, needed, first))
        if needed > end:
            raise GapError(
                f"{self._name}: the state has read {source} up to {needed} but the log ends at {end}: the log was "
                f"replaced by an older or another one. Put back the right log, or start a new lane."
            )
        return needed

    def _gap(self, source: TopicPartition, needed: int, first: int) -> str:
        return (
            f"{self._name}: the next record of {source} needed is {needed}, but the log starts at {first}: retention "
            f"took {first - needed} offsets before they were read. Counts would be wrong from here on: start a new "
            f"lane, and keep that topic longer (retention_hours, bytes) or let the owner lag less."
        )

    def _read_and_apply(self, timeout_seconds: float) -> bool:
        positions = {source: self._positions[source] for source in self._wanted()}
        if not self._log.wait(positions, timeout_seconds):
            return False
        self._turn += 1
        turn = self._turn % len(positions) if self._chooser is None else 0
        order = list(positions)
        applied = False
        for source in order[turn:] + order[:turn]:
            if applied and source not in self._wanted():
                continue
            records = self._read(source)
            if records:
                self._stage.apply(source, records)
                self._beats += 1
                self._positions[source] = records[-1].offset + 1
                self._newest_ms = max(self._newest_ms, records[-1].appended_at_ms)
                applied = True
        return applied

    def _wanted(self) -> Sequence[TopicPartition]:
        return self._stage.inputs if self._chooser is None else self._chooser.wants()

    def _read(self, source: TopicPartition) -> list[Record]:
        position = self._positions[source]
        try:
            records = self._read_at(source, position)
            if not records:
                # Compaction may have taken all that was there: pass the hole. The end is asked before the second read,
                # so nothing appended in between is passed with it.
                end = self._log.bounds(source)[1]
                if end > position:
                    records = self._read_at(source, position)
                    if not records:
                        self._positions[source] = end
            return records
        except OffsetGoneError as error:
            raise GapError(self._gap(source, position, self._log.bounds(source)[0])) from error

    def _read_at(self, source: TopicPartition, offset: int) -> list[Record]:
        self._beats += 1
        return self._log.read(source, offset, self._records_per_read_max, self._bytes_per_read_max)

    def _gather(self) -> None:
        outputs = self._stage.outputs()
        (self._pending if self._fence_outputs else self._pending_outputs).extend(outputs)
        self._pending.extend(self._stage.snapshot(self._clock.now_ms()))
        self._pending_oldest = dict(self._stage.oldest())

    def _flush(self, fence: Fence) -> None:
        if self._pending_outputs:
            self._append(self._pending_outputs, None)
            self._pending_outputs = []
        if self._pending:
            self._append(self._pending, fence)
            self._pending = []
        # Only now are the chunks that `oldest` counts on really written.
        self._written_oldest = self._pending_oldest
        self._flushed = dict(self._positions)

    def _append(self, entries: Sequence[Entry], fence: Fence | None) -> None:
        offsets = self._log.append(entries, fence)
        self._beats += 1
        said = dict(self._said)
        said.update(
            {TopicPartition(e.topic, e.partition): offset + 1 for e, offset in zip(entries, offsets, strict=True)}
        )
        self._said = said

    def _commit(self, fence: Fence) -> None:
        now_ms = self._clock.now_ms()
        if now_ms - self._committed_at_ms < self._commit_ms:
            return
        self._committed_at_ms = now_ms
        moved = {
            source: offset for source, offset in self._written_oldest.items() if self._committed.get(source) != offset
        }
        if moved:
            self._log.commit(self._group, moved, fence)
            self._committed.update(moved)


__all__ = ["ChoosesInputs", "FencedError", "GapError", "Owner", "Stateful"]
