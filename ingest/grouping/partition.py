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
from typing import Any

import msgspec
import numpy as np

from ingest.activity import ActivityBatch
from ingest.deadletter import DeadReason
from ingest.events import TIME_MAX_MS, TIME_MIN_MS, RolloutNotice, Tick
from ingest.grouping.choice import choose_rivals
from ingest.grouping.columns import (
    Columns,
    CrashBatch,
    activity_columns,
    crash_columns,
    decode_activity,
    decode_crashes,
    join,
    notice_keys,
)
from ingest.grouping.fleet import Keys
from ingest.grouping.population import CrashItem, Population
from ingest.grouping.strata import Minute, Minutes
from ingest.grouping.ticks import Cutter, Interval
from ingest.log.interface import Record
from ingest.outcome import Outcome
from ingest.windows import CohortWindow, FirstCrash, HeardMinute, Step

MINUTE_MS = 60_000
BLIND_MS = 60_000
ADVISE_MS = 1000
PENDING_REPORTS_MAX = 200_000
INTERVALS_MAX = 512


class Place(msgspec.Struct, frozen=True):
    """Where a partition stands in its two sources: reading on from here cuts the same steps again.

    Attributes:
        watermark_ms: of the last step.
        offsets: the next offset, by topic word.
        ticks: the newest tick of each gateway there, by topic word.
        cut_ms: the source's own watermark there, by topic word.
    """

    watermark_ms: int = 0
    offsets: dict[str, int] = {}
    ticks: dict[str, dict[str, int]] = {}
    cut_ms: dict[str, int] = {}


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
        self._offsets = {"activity": 0, "crashes": 0}
        self._ticks: dict[str, dict[str, int]] = {"activity": {}, "crashes": {}}
        self._cut_ms = {"activity": 0, "crashes": 0}
        self._caught_up = Place()
        self._on_bad = on_bad
        self._advised_ms = 0

    def place(self) -> Place:
        """Return where the last step ended."""
        return Place(self.population.memory.watermark_ms, dict(self._offsets), dict(self._ticks), dict(self._cut_ms))

    def resume(self, start: Place, memory: Place) -> None:
        """Read on from `start`, silently until `memory`, which is what was said before a restart.

        The population must hold the state as of `memory`, and know what of it has seen which steps.
        """
        self._caught_up = memory
        self.population.memory.watermark_ms = memory.watermark_ms
        for word, cutter in (("activity", self.activity), ("crashes", self.crashes)):
            self._offsets[word] = start.offsets.get(word, 0)
            self._ticks[word] = start.ticks.get(word, {})
            self._cut_ms[word] = start.cut_ms.get(word, 0)
            cutter.ticks.load(self._ticks[word], self._cut_ms[word])

    def wanted(self) -> list[str]:
        """Return which sources may be read now: a source that ran far ahead waits for the other.

        One without a closed interval is always read, however much it holds: only a tick can let that go.
        """
        ready = []
        for word, cutter in (("activity", self.activity), ("crashes", self.crashes)):
            if not cutter.closed or (len(cutter.closed) < INTERVALS_MAX and cutter.pending < PENDING_REPORTS_MAX):
                ready.append(word)
        return ready

    def read_activity(self, record: Record) -> None:
        """Take one record of the activity topic."""
        got = decode_activity(record.value or b"")
        if isinstance(got, Tick):
            self._tick("activity", self.activity, got, record)
        elif isinstance(got, RolloutNotice):
            if self._checked("activity", record, lambda: notice_keys(got)) is not None:
                self.activity.add(got, 0)
        elif isinstance(got, ActivityBatch):
            if got.kinds:
                columns = self._columns("activity", record, lambda: activity_columns(got, self.population.words))
                if columns is not None:
                    self.activity.add(columns, len(columns))
        else:
            self._bad("activity", record, DeadReason.UNREADABLE, "")

    def read_crashes(self, record: Record) -> None:
        """Take one record of the crash topic."""
        got = decode_crashes(record.value or b"")
        if isinstance(got, Tick):
            self._tick("crashes", self.crashes, got, record)
        elif isinstance(got, CrashBatch):
            if got.reports:
                columns = self._columns("crashes", record, lambda: crash_columns(got, self.population.words))
                if columns is not None:
                    for report in got.reports:
                        report.at_ms = min(report.at_ms, got.received_at_ms)
                    self.crashes.add(self._crash_item(columns, got), len(columns), got.received_at_ms)
        else:
            self._bad("crashes", record, DeadReason.UNREADABLE, "")

    def _crash_item(self, columns: Columns, batch: CrashBatch) -> CrashItem:
        """Return the crashes of a batch; behind, if the watermark has passed the gateway that brings it.

        A gateway's own ticks never lie ahead of what it brings next, so this one was silent for too long. The activity
        that belongs to its crashes may not have come yet, and what was counted meanwhile lacks its devices.
        """
        behind = batch.received_at_ms < self.crashes.ticks.watermark_ms
        return CrashItem(columns, list(batch.reports), np.full(len(columns), behind))

    def _tick(self, word: str, cutter: Cutter[Any], tick: Tick, record: Record) -> None:
        if TIME_MIN_MS <= tick.at_ms <= TIME_MAX_MS:
            cutter.tick(tick.gateway, tick.at_ms, record.offset + 1, tick.leaving)
        else:
            self._bad(word, record, DeadReason.INCONSISTENT, f"a tick at {tick.at_ms} ms is no time")

    def _bad(self, word: str, record: Record, reason: DeadReason, detail: str) -> None:
        """Hand over a record that can't be used, unless it was before a restart."""
        if record.offset >= self._caught_up.offsets.get(word, 0):
            self._on_bad(word, record, reason, detail)

    def _checked(self, word: str, record: Record, keys: Callable[[], Keys]) -> Keys | None:
        """Return the devices of a record; None, and the record is dead-lettered, where one is not of this partition."""
        try:
            found = keys()
        except ValueError as error:
            self._bad(word, record, DeadReason.INCONSISTENT, str(error))
            return None
        partition = (found >> np.uint64(32)) % np.uint64(self.bounds.partitions)
        if (partition != self.bounds.partition).any():
            self._bad(word, record, DeadReason.WRONG_PARTITION, "")
            return None
        return found

    def _columns(self, word: str, record: Record, read: Callable[[], Columns]) -> Columns | None:
        columns: list[Columns] = []

        def keys() -> Keys:
            columns.append(read())
            return columns[0].key

        if self._checked(word, record, keys) is not None:
            return columns[0]
        if columns:
            self.population.outcomes[Outcome.WRONG_PARTITION] += len(columns[0])
        return None

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
        population = self.population
        speaks = watermark_ms > self._caught_up.watermark_ms
        if speaks and population.catching_up is not None:
            population.catching_up = None
            population.outcomes.clear()
            population.cohorts.resume(since_ms // 1000)
            population.owners.meet(population.fleet.rows["tenant"])
        for taken in self.activity.take_until(watermark_ms):
            self._take("activity", taken)
            population.apply_notices([item for item in taken.items if isinstance(item, RolloutNotice)], watermark_ms)
            batches = [item for item in taken.items if isinstance(item, Columns)]
            if batches:
                population.apply_activity(join(batches), watermark_ms)
        population.apply_due_pushes(watermark_ms)
        found: dict[str, list[FirstCrash]] = {}
        for due in self.crashes.take_until(watermark_ms):
            self._take("crashes", due)
            if due.items:
                # Crashes come in many small records: together they cost a fraction of one by one.
                reports = [report for item in due.items for report in item.reports]
                behind = np.concatenate([item.behind for item in due.items])
                item = CrashItem(join([item.columns for item in due.items]), reports, behind)
                for name, rows in population.apply_crashes(item, watermark_ms).items():
                    found.setdefault(name, []).extend(rows)
        if not speaks:
            return None
        windows = self._windows(found, since_ms, watermark_ms)
        population.memory.watermark_ms = watermark_ms
        return self._says(since_ms, windows)

    def _take(self, word: str, interval: Interval[Any]) -> None:
        self._offsets[word], self._ticks[word] = interval.offset, interval.ticks
        self._cut_ms[word] = interval.watermark_ms

    def _says(self, since_ms: int, windows: list[CohortWindow]) -> Step:
        return Step(
            partition=self.bounds.partition,
            generation=0,
            offsets=dict(self._offsets),
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
                        margins=self.population.cohorts.margins_said(watched),
                        owners=self.population.owners.news(name, full=watched.full),
                        recovery=self.population.cohorts.recovery_said(watched),
                    )
                )
                watched.full = False
                watched.exposed_said = watched.exposed_total
        return windows

    def _minutes(self, since_ms: int, watermark_ms: int) -> dict[str, list[HeardMinute]]:
        """Move on the tables whose minute the step passed; return the strata of minutes that ended or fell due.

        A step longer than a minute means that Cordon was blind: silence is not judged from what it did not hear.
        """
        now = watermark_ms // MINUTE_MS
        cohorts, memory = self.population.cohorts, self.population.memory
        if since_ms == 0 or watermark_ms - since_ms > BLIND_MS:
            memory.silence_from_s = (now + 1) * 60
        if now != since_ms // MINUTE_MS or not cohorts.now_s:
            choose_rivals(cohorts, now * 60)
        overdue_s = self.bounds.silence_seconds // 60 * 60
        due = [
            Minute(begin_s, told_s, silent=silent)
            for told_s in cohorts.begin_minutes(watermark_ms // 1000)
            for begin_s, silent in ((told_s - 60, False), (told_s - 60 - overdue_s, True))
            if begin_s >= memory.silence_from_s
        ]
        minutes = Minutes(due)
        cohorts.count(minutes, overdue_s)
        return minutes.strata()
