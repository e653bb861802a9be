"""One device partition of grouping: from tick to tick, reports change rows and rows give cohort windows.

Activity and crashes are two ordered sources. A step ends at a watermark that both have reached: first the step's
rollout notices and activity are applied, then the crashes received before the same tick. So a crash is evidence only
once the activity before it was counted, and the outcome depends on the records alone, never on how reading them was
interleaved. Where activity is late, crashes wait, and an advisory step (one that does not move the watermark) says how
many and how late.

While catching up after a restart (steps up to the watermark of the newest snapshot), rows in chunks written later than
a step have seen it already and are left alone, and nothing is said: it was said before that snapshot was written.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ingest.activity import ActivityBatch
from ingest.deadletter import DeadReason
from ingest.events import RolloutNotice, Tick
from ingest.grouping.columns import (
    Columns,
    CrashBatch,
    activity_columns,
    crash_columns,
    decode_activity,
    decode_crashes,
    join,
)
from ingest.grouping.population import CrashItem, Population
from ingest.grouping.ticks import Cutter
from ingest.log.interface import Record
from ingest.outcome import Outcome
from ingest.windows import CohortWindow, FirstCrash, HeardMinute, Step

MINUTE_MS = 60_000
BLIND_MS = 60_000
ADVISE_MS = 1000
PENDING_REPORTS_MAX = 200_000
INTERVALS_MAX = 512
MINUTES_AT_ONCE_MAX = 5


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one partition is told.

    Attributes:
        partition: its number.
        partitions: how many there are.
        devices_max: devices this partition may hold.
        silence_seconds: how long after its last word a device is silent; whole minutes.
    """

    partition: int
    partitions: int
    devices_max: int
    silence_seconds: int


class Partition:
    """The state of one device partition, advanced by records."""

    def __init__(self, bounds: Bounds, on_bad: Callable[[str, Record, DeadReason, str], None]) -> None:
        """Make an empty partition.

        Args:
            bounds: its number and limits.
            on_bad: called with topic word, record, reason and detail for a record that can't be used.
        """
        self.bounds = bounds
        self.population = Population(bounds.devices_max)
        self.activity: Cutter[Columns | RolloutNotice] = Cutter()
        self.crashes: Cutter[CrashItem] = Cutter()
        self.offsets = {"activity": 0, "crashes": 0}
        self.ticks: dict[str, dict[str, int]] = {"activity": {}, "crashes": {}}
        self.caught_up_at_ms = 0
        self._on_bad = on_bad
        self._advised_ms = 0

    def wanted(self) -> list[str]:
        """Return which sources may be read now: a source that ran far ahead waits for the other."""
        ready = []
        for word, cutter in (("activity", self.activity), ("crashes", self.crashes)):
            if len(cutter.closed) < INTERVALS_MAX and cutter.pending < PENDING_REPORTS_MAX:
                ready.append(word)
        return ready

    def read_activity(self, record: Record) -> None:
        """Take one record of the activity topic."""
        got = decode_activity(record.value or b"")
        if isinstance(got, Tick):
            self.activity.tick(got.gateway, got.at_ms, record.offset + 1)
        elif isinstance(got, RolloutNotice):
            self.activity.add(got, 0)
        elif isinstance(got, ActivityBatch) and got.kinds:
            columns = self._columns("activity", record, lambda: activity_columns(got, self.population.words))
            if columns is not None:
                self.activity.add(columns, len(columns))
        elif got is None:
            self._on_bad("activity", record, DeadReason.UNREADABLE, "")

    def read_crashes(self, record: Record) -> None:
        """Take one record of the crash topic."""
        got = decode_crashes(record.value or b"")
        if isinstance(got, Tick):
            self.crashes.tick(got.gateway, got.at_ms, record.offset + 1)
        elif isinstance(got, CrashBatch) and got.reports:
            columns = self._columns("crashes", record, lambda: crash_columns(got.reports, self.population.words))
            if columns is not None:
                columns.at = np.minimum(columns.at, np.uint32(got.received_at_ms // 1000))
                self.crashes.add(CrashItem(columns, list(got.reports)), len(columns))
        elif got is None:
            self._on_bad("crashes", record, DeadReason.UNREADABLE, "")

    def _columns(self, word: str, record: Record, read: Callable[[], Columns]) -> Columns | None:
        try:
            columns = read()
        except ValueError as error:
            self._on_bad(word, record, DeadReason.INCONSISTENT, str(error))
            return None
        partition = (columns.key >> np.uint64(32)) % np.uint64(self.bounds.partitions)
        if (partition != self.bounds.partition).any():
            self.population.outcomes[Outcome.WRONG_PARTITION] += len(columns)
            self._on_bad(word, record, DeadReason.WRONG_PARTITION, "")
            return None
        return columns

    def advance(self) -> list[Step]:
        """Make every step that both sources allow, and return what is to be said."""
        steps = []
        while self.activity.closed and self.crashes.ticks.watermark_ms >= self.activity.closed[0].watermark_ms:
            step = self._step()
            if step is not None:
                steps.append(step)
        if not steps and not self.activity.closed and self._activity_is_late():
            steps.append(self._says(self.population.memory.watermark_ms, []))
        return steps

    def _activity_is_late(self) -> bool:
        """Tell, at most once a second of crash time, that the crash topic was read ahead of the watermark."""
        ahead_ms = self.crashes.ticks.watermark_ms
        late = ahead_ms - max(self._advised_ms, self.population.memory.watermark_ms) >= ADVISE_MS
        if late:
            self._advised_ms = ahead_ms
        return late

    def _step(self) -> Step | None:
        interval = self.activity.closed[0]
        since_ms, watermark_ms = self.population.memory.watermark_ms, interval.watermark_ms
        speaks = watermark_ms > self.caught_up_at_ms
        if speaks and self.population.rows_seen_ms is not None:
            self.population.rows_seen_ms = None
            self.population.cohorts.move_to(since_ms // MINUTE_MS * 60)
        for taken in self.activity.take_until(watermark_ms):
            notices = [item for item in taken.items if isinstance(item, RolloutNotice)]
            self.population.apply_notices(notices, watermark_ms)
            batches = [item for item in taken.items if isinstance(item, Columns)]
            if batches:
                self.population.apply_activity(join(batches), watermark_ms)
            self.offsets["activity"], self.ticks["activity"] = taken.offset, taken.ticks
        self.population.apply_due_pushes(watermark_ms)
        found: dict[str, list[FirstCrash]] = {}
        for crash_interval in self.crashes.take_until(watermark_ms):
            for item in crash_interval.items:
                for name, rows in self.population.apply_crashes(item, watermark_ms).items():
                    found.setdefault(name, []).extend(rows)
            self.offsets["crashes"], self.ticks["crashes"] = crash_interval.offset, crash_interval.ticks
        if not speaks:
            return None
        windows = self._windows(found, since_ms, watermark_ms)
        self.population.memory.watermark_ms = watermark_ms
        return self._says(since_ms, windows)

    def _says(self, since_ms: int, windows: list[CohortWindow]) -> Step:
        return Step(
            partition=self.bounds.partition,
            generation=0,
            offsets=dict(self.offsets),
            since_ms=since_ms,
            watermark_ms=self.population.memory.watermark_ms,
            crash_watermark_ms=self.crashes.ticks.watermark_ms,
            pending=self.crashes.pending,
            windows=windows,
        )

    def _windows(self, found: dict[str, list[FirstCrash]], since_ms: int, watermark_ms: int) -> list[CohortWindow]:
        heard = self._minutes(since_ms, watermark_ms)
        windows = []
        for name, watched in self.population.cohorts.watched.items():
            crashes = found.get(name, [])
            watched.crash_total += len(crashes)
            at_risk = self.population.cohorts.changes(watched)
            minutes = heard.get(name, [])
            if at_risk or crashes or minutes or watched.full or watched.exposed_total != watched.exposed_said:
                notice = watched.notice
                windows.append(
                    CohortWindow(
                        rollout=name,
                        vendor=notice.vendor,
                        product=notice.product,
                        version=notice.version,
                        origin_ms=notice.origin_ms,
                        full=watched.full,
                        at_risk=at_risk,
                        crashes=crashes,
                        heard=minutes,
                        crash_total=watched.crash_total,
                        exposed_total=watched.exposed_total,
                        pending=self.crashes.pending,
                    )
                )
                watched.full = False
                watched.exposed_said = watched.exposed_total
        return windows

    def _minutes(self, since_ms: int, watermark_ms: int) -> dict[str, list[HeardMinute]]:
        """Move the tables on if the step passed a minute, and return the strata of minutes that ended or fell due."""
        ended, now = since_ms // MINUTE_MS, watermark_ms // MINUTE_MS
        strata: dict[str, list[HeardMinute]] = {}
        if now == ended and self.population.cohorts.minute_s:
            return strata
        memory = self.population.memory
        if since_ms == 0 or watermark_ms - since_ms > BLIND_MS:
            memory.silence_from_s = (now + 1) * 60
            ended = now
        self.population.cohorts.move_to(now * 60)
        for watched in self.population.cohorts.watched.values():
            watched.full = True
        overdue = self.bounds.silence_seconds // 60
        for minute in range(max(ended, now - MINUTES_AT_ONCE_MAX), now):
            for judged, silent in ((minute, False), (minute - overdue, True)):
                if judged * 60 < memory.silence_from_s or not self.population.cohorts.watched:
                    continue
                for name, rows in self.population.cohorts.heard_minutes(judged * 60, silent).items():
                    strata.setdefault(name, []).extend(rows)
        return strata
