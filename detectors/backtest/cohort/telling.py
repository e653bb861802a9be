"""Says the steps of a trace: what each partition has to say of each rollout, and the rollouts themselves, in log order.

The tables are kept as grouping keeps them, and said as grouping says them: what changed, everything in full windows,
strata twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.backtest.cohort.grid import MINUTE_MS, PUSH_MINUTES, lag_ms, quiet_ms, ring_starts
from detectors.backtest.cohort.tables import RolloutTables, Sums
from detectors.backtest.draws import Ints
from detectors.backtest.scenario import Scenario
from ingest.rollouts import Rollout
from ingest.tenancy import GROUPS, tenant_group, tenant_hash
from ingest.windows import AtRisk, CohortWindow, FirstCrash, HeardMinute, MarginRisk, Step

# Grouping does not judge silence from minutes that a longer step has passed.
_BLIND_MS: Final = 60_000
# Quiet steps between full windows where steps are not of one length: with newly exposed devices, and without.
_FULL_MOVED: Final = 5
_FULL: Final = 15

Table = npt.NDArray[np.int32]
Admitted = dict[tuple[int, int], dict[int, list[FirstCrash]]]


class _Cursor:
    """Hands out the changes of one table slot by slot."""

    def __init__(self, sums: Sums, size: int) -> None:
        keys, self._counts = sums.total()
        self._size = size
        self._slots, self._places = keys // size, keys % size
        self._next = 0

    def take(self, slot: int) -> tuple[Ints, Ints]:
        """Return places and counts up to and with a slot; slots are asked for in ascending order."""
        end = self._next
        if end < len(self._slots) and self._slots[end] <= slot:
            end = int(np.searchsorted(self._slots, slot, side="right"))
        taken = slice(self._next, end)
        self._next = end
        return self._places[taken], self._counts[taken]

    def only(self, slot: int) -> tuple[Ints, Ints]:
        """Return places and counts of a slot, passing over those before it."""
        self._next = max(self._next, int(np.searchsorted(self._slots, slot)))
        return self.take(slot)


def _by_partition(sums: Sums, size: int, partitions: int) -> list[_Cursor]:
    """Return one cursor a partition, its slots the steps (or minutes)."""
    keys, counts = sums.total()
    slots, places = keys // size, keys % size
    cursors = []
    for partition in range(partitions):
        mine = slots % partitions == partition
        part = Sums()
        part.add(slots[mine] // partitions * size + places[mine], counts[mine])
        cursors.append(_Cursor(part, size))
    return cursors


@dataclass
class _Voice:
    """One rollout in one partition."""

    tables: RolloutTables
    classes: int
    at_risk: _Cursor
    margins: _Cursor
    exposed: _Cursor
    sizes: _Cursor
    extra: _Cursor
    silent: _Cursor
    counts: Table = field(init=False)
    margin_counts: Table = field(init=False)
    size_counts: Table = field(init=False)
    exposed_total: int = 0
    exposed_said: int = -1
    crash_total: int = 0
    full: bool = True
    full_ms: int = 0
    exposed_full: int = -1

    def __post_init__(self) -> None:
        size, classes = self.tables.cells.places, self.classes
        self.counts = np.zeros(size, dtype=np.int32)
        self.margin_counts = np.zeros(self.tables.margin_places, dtype=np.int32)
        self.size_counts = np.zeros(classes * size, dtype=np.int32)


class Teller:
    """Makes the steps.

    Args:
        times_ms: watermarks of the steps.
        tables: one for each rollout under watch.
        admitted: first crashes by step and partition, then by rollout.
        arrivals_ms: by partition, when crash reports arrive, ascending.
        classes: how many minutes lie between a device's check-ins.
        silence_ms: how long after its last word a device is silent.
        exact: whether every minute's window is full, as grouping's are.
    """

    def __init__(
        self,
        scenario: Scenario,
        times_ms: Ints,
        partitions: int,
        tables: list[RolloutTables],
        admitted: Admitted,
        arrivals_ms: list[Ints],
        classes: int,
        silence_ms: int,
        exact: bool,
    ) -> None:
        self._scenario, self._times, self._partitions = scenario, times_ms, partitions
        self._tables, self._admitted, self._arrivals = tables, admitted, arrivals_ms
        self._classes, self._silence_ms, self._exact = classes, silence_ms, exact
        self._first_minute = int(times_ms[0]) // MINUTE_MS - 1
        self._starts, self._quiet_ms = ring_starts(scenario), quiet_ms(scenario)
        self._owners = _owners([tenant.name for tenant in scenario.fleet.tenants])

    def feed(self) -> Iterator[Rollout | Step]:
        """Yield rollouts and steps in the order of the log."""
        voices = [self._voices(tables) for tables in self._tables]
        watched = [tables.one for tables in self._tables]
        told = [False] * len(watched)
        closed = [False] * len(watched)
        since, silence_from = 0, 0
        for number, watermark in enumerate(self._times.tolist()):
            for place, one in enumerate(watched):
                if not told[place] and one.said_ms < watermark:
                    told[place] = True
                    yield one.record
                if one.closed and not closed[place] and one.until_ms < watermark:
                    closed[place] = True
                    yield msgspec.structs.replace(one.record, closed=True)
            minute = watermark // MINUTE_MS
            passes = minute != since // MINUTE_MS
            if passes and (since == 0 or watermark - since > _BLIND_MS):
                silence_from = minute + 1
            lag = lag_ms(self._scenario, watermark)
            for partition in range(self._partitions):
                crashes = self._admitted.get((number, partition), {})
                pending = self._pending(partition, watermark, lag)
                windows = []
                for place, one in enumerate(watched):
                    if one.said_ms < watermark:
                        voice = voices[place][partition]
                        window = self._window(voice, number, since, watermark, silence_from, crashes.get(place, []))
                        if window is not None and one.until_ms >= watermark:
                            window.pending = pending
                            windows.append(window)
                yield Step(
                    partition=partition,
                    generation=1,
                    offsets={},
                    since_ms=since,
                    watermark_ms=watermark,
                    crash_watermark_ms=watermark + lag,
                    pending=pending,
                    windows=windows,
                )
            since = watermark

    def _voices(self, tables: RolloutTables) -> list[_Voice]:
        size, margins, parts = tables.cells.places, tables.margin_places, self._partitions
        columns = (
            _by_partition(tables.at_risk, size, parts),
            _by_partition(tables.margins, margins, parts),
            _by_partition(tables.exposed, 1, parts),
            _by_class(tables.sizes, size, self._classes, parts),
            _by_partition(tables.extra, size, parts),
            _by_partition(tables.silent, size, parts),
        )
        return [_Voice(tables, self._classes, *cursors) for cursors in zip(*columns, strict=True)]

    def _pending(self, partition: int, watermark: int, lag: int) -> int:
        if not lag:
            return 0
        low, high = np.searchsorted(self._arrivals[partition], [watermark, watermark + lag])
        return int(high - low)

    def _window(
        self, voice: _Voice, step: int, since: int, watermark: int, silence_from: int, crashes: list[FirstCrash]
    ) -> CohortWindow | None:
        places, changes = voice.at_risk.take(step)
        np.add.at(voice.counts, places, changes)
        voice.exposed_total += int(voice.exposed.take(step)[1].sum())
        heard: list[HeardMinute] = []
        minute = watermark // MINUTE_MS
        if minute != since // MINUTE_MS:
            heard = self._heard(voice, minute, silence_from)
            most = _FULL_MOVED if voice.exposed_total != voice.exposed_full else _FULL
            voice.full |= self._exact or watermark - voice.full_ms >= most * self._quiet_ms
        at_risk = _rows(voice, places)
        if not (at_risk or crashes or heard or voice.full or voice.exposed_total != voice.exposed_said):
            return None
        voice.crash_total += len(crashes)
        record = voice.tables.one.record
        window = CohortWindow(
            rollout=record.rollout,
            vendor=record.vendor,
            product=record.product,
            version=record.version,
            origin_ms=record.origin_ms,
            full=voice.full,
            at_risk=at_risk,
            crashes=crashes,
            heard=heard,
            crash_total=voice.crash_total,
            exposed_total=voice.exposed_total,
            margins=self._margins(voice, step) if voice.full else [],
            owners=self._owners if voice.full else [],
        )
        if voice.full:
            voice.full_ms, voice.exposed_full = watermark, voice.exposed_total
        voice.full, voice.exposed_said = False, voice.exposed_total
        return window

    def _margins(self, voice: _Voice, step: int) -> list[MarginRisk]:
        places, changes = voice.margins.take(step)
        np.add.at(voice.margin_counts, places, changes)
        pairs = voice.margin_counts.reshape(-1, 2)
        found = np.flatnonzero(pairs.any(axis=1))
        names = voice.tables.margin_names
        return [
            MarginRisk(names[pair // GROUPS], pair % GROUPS, exposed, control)
            for pair, (control, exposed) in zip(found.tolist(), pairs[found].tolist(), strict=True)
        ]

    def _judges(self, minute: int) -> bool:
        """Tell whether a minute is judged for silence: each does at the beginning of a ring, one class in turn else."""
        if self._exact or any(start <= minute < start + PUSH_MINUTES for start in self._starts):
            return True
        return (minute // self._classes + minute) % self._classes == 0

    def _heard(self, voice: _Voice, minute: int, silence_from: int) -> list[HeardMinute]:
        """Return the strata of the minute that ended, and of the one that fell due."""
        ended, overdue = minute - 1, minute - 1 - self._silence_ms // MINUTE_MS
        size = voice.tables.cells.places
        places, changes = voice.sizes.take(ended - self._first_minute)
        np.add.at(voice.size_counts, places, changes)
        extra_places, extra = voice.extra.only(ended - self._first_minute)
        silent_places, silent = voice.silent.only(overdue - self._first_minute)
        rows: list[HeardMinute] = []
        if ended >= silence_from and self._judges(ended):
            kind = ended % self._classes
            counts = voice.size_counts[kind * size : (kind + 1) * size]
            if len(extra):
                counts = counts.copy()
                np.add.at(counts, extra_places, extra)
            rows += _strata(voice, ended, counts, silent=False)
        if overdue >= silence_from and len(silent) and self._judges(overdue):
            counts = np.zeros(size, dtype=np.int32)
            np.add.at(counts, silent_places, silent)
            rows += _strata(voice, overdue, counts, silent=True)
        return rows


def _owners(tenants: Sequence[str]) -> list[tuple[int, int]]:
    """Return each tenant group with the hash of its tenant, or 0 for several: each tenant has devices everywhere."""
    groups: dict[int, list[str]] = {}
    for name in tenants:
        groups.setdefault(tenant_group(name), []).append(name)
    return sorted((group, tenant_hash(names[0]) if len(names) == 1 else 0) for group, names in groups.items())


def _by_class(sums: Sums, size: int, classes: int, partitions: int) -> list[_Cursor]:
    """Return cursors over sizes of strata: slots are minutes, places `class * size + place`."""
    keys, counts = sums.total()
    slot, place = keys // size, keys % size
    rest, kind = slot // classes, slot % classes
    again = Sums()
    again.add(rest * (size * classes) + kind * size + place, counts)
    return _by_partition(again, size * classes, partitions)


def _rows(voice: _Voice, places: Ints) -> list[AtRisk]:
    pairs = voice.counts.reshape(-1, 2)
    found = np.flatnonzero(pairs.any(axis=1)) if voice.full else np.unique(places >> 1)
    texts = voice.tables.cells.texts
    return [
        AtRisk(texts[pair // GROUPS], pair % GROUPS, exposed, control)
        for pair, (control, exposed) in zip(found.tolist(), pairs[found].tolist(), strict=True)
    ]


def _strata(voice: _Voice, minute: int, counts: Table, *, silent: bool) -> list[HeardMinute]:
    pairs = counts.reshape(-1, 2)
    found = np.flatnonzero(pairs.any(axis=1))
    texts, begin = voice.tables.cells.texts, minute * MINUTE_MS
    if silent:
        return [
            HeardMinute(begin, texts[pair // GROUPS], pair % GROUPS, 0, 0, exposed, control)
            for pair, (control, exposed) in zip(found.tolist(), pairs[found].tolist(), strict=True)
        ]
    return [
        HeardMinute(begin, texts[pair // GROUPS], pair % GROUPS, exposed, control, 0, 0)
        for pair, (control, exposed) in zip(found.tolist(), pairs[found].tolist(), strict=True)
    ]
