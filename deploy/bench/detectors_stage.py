"""What detection costs with many rollouts under watch: a minute of event time through the whole stage.

The load of that minute, for each rollout: a full window from each device partition with all 64 cells, what was heard of
their devices, and a verdict, at the second at which its own minute begins, as grouping says it; and in every second,
all over the rollouts, changed counts and first crashes. Steps are encoded beforehand: what counts is the stage's own
processor time, decoding included.
"""

import gc
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from deploy.bench.figures import Figure, at_most, printed
from deploy.serving.garbage import ASIDE_SECONDS, WHOLE_SECONDS, set_aside, sparing_collections
from detectors.policy import load
from detectors.stage import DetectionStage
from ingest.events import encoder, product_key
from ingest.log.interface import Record
from ingest.minutes import offset_seconds
from ingest.rollouts import Bound, Rollout, rollout_id
from ingest.topics import Topics, keyed_partition_of
from ingest.windows import AtRisk, CohortWindow, FirstCrash, HeardMinute, Step

ROLLOUTS: Final = (100, 1_000, 10_000)
PARTITIONS: Final = 8
GROUPS: Final = 8
# A second of event time: this part of the rollouts has changed counts, in so many cells; so many crash.
CHANGED_SHARE: Final = 0.05
CHANGED_CELLS: Final = 4
CRASHED_SHARE: Final = 0.005
_MINUTE_MS: Final = 60_000
_TICK_MS: Final = 250
_BEGIN_MS: Final = 1_721_361_600_000
_PAGE_BYTES: Final = 4096
CELLS: Final = [
    f"{family}|{form}|{ring}|{boot}|{recency}"
    for family in ("19045", "20348", "22631", "26100")
    for form in ("desktop", "laptop")
    for ring in ("early", "broad")
    for boot in ("day", "old")
    for recency in ("recent", "stale")
]


class Watched(NamedTuple):
    """One rollout under watch."""

    rollout: str
    vendor: str
    product: str


class Load:
    """Writes the steps of some rollouts; every device partition has the same share of each of them.

    A cell's devices are of one tenant group in a partition, and of all eight over the partitions.
    """

    def __init__(self, rollouts: int, topics: Topics, seed: int) -> None:
        self.watched: list[Watched] = []
        self._rng = np.random.default_rng(seed)
        self._crashes = np.zeros((rollouts, PARTITIONS), dtype=np.int64)
        self._since = [0] * PARTITIONS
        number = 0
        while len(self.watched) < rollouts:
            vendor, product = f"vendor-{number % 97}", f"product-{number}"
            number += 1
            if keyed_partition_of(product_key(vendor, product), topics.keyed_partitions) == 0:
                self.watched.append(Watched(rollout_id(vendor, product, "2"), vendor, product))

    def declarations(self) -> list[bytes]:
        """Return the rollouts' records."""
        return [
            encoder.encode(
                Rollout(
                    rollout=one.rollout,
                    vendor=one.vendor,
                    product=one.product,
                    update_kind="driver",
                    version="2",
                    origin_ms=_BEGIN_MS,
                    bound=Bound.OFFERED,
                )
            )
            for one in self.watched
        ]

    def full(self, at_ms: int) -> Iterator[bytes]:
        """Yield the steps of the first tick in a second: every partition names every cell of the rollouts due in it."""
        begun_s = at_ms // 1000
        due = [place for place, one in enumerate(self.watched) if offset_seconds(one.rollout) == begun_s % 60]
        minute = begun_s * 1000 - _MINUTE_MS
        for partition in range(PARTITIONS):
            rows = [AtRisk(cell, (partition + i) % GROUPS, 20 + i % 5, 80 + i % 7) for i, cell in enumerate(CELLS)]
            heard = [HeardMinute(minute, row.cell, row.group, 2, 8, 0, 0) for row in rows]
            # All but its name is alike in the windows of one partition: encoded once, it is said of every rollout.
            same = encoder.encode({"full": True, "at_risk": rows, "heard": heard})[1:]
            windows = []
            for place in due:
                named = encoder.encode(self._window(place, partition))
                windows.append(msgspec.Raw(named[:-1] + b"," + same))
            yield self._step(partition, at_ms, windows)

    def quarter(self, at_ms: int) -> Iterator[bytes]:
        """Yield the steps of a quarter second: some counts changed, some devices crashed."""
        changed = self._pick(CHANGED_SHARE / 4)
        crashed = self._pick(CRASHED_SHARE / 4)
        windows: list[list[CohortWindow]] = [[] for _ in range(PARTITIONS)]
        for place, crashes in ((place, place in crashed) for place in sorted(changed | crashed)):
            partition = int(self._rng.integers(PARTITIONS))
            rows = [
                AtRisk(CELLS[i], (partition + i) % GROUPS, *self._rng.integers(20, 90, size=2).tolist())
                for i in self._rng.integers(len(CELLS), size=CHANGED_CELLS).tolist()
            ]
            found = [self._crash(at_ms, partition)] if crashes else []
            windows[partition].append(self._window(place, partition, at_risk=rows, crashes=found))
        for partition, said in enumerate(windows):
            yield self._step(partition, at_ms, said)

    def _pick(self, share: float) -> set[int]:
        count = self._rng.binomial(len(self.watched), share)
        return set(self._rng.integers(len(self.watched), size=count).tolist())

    def _crash(self, at_ms: int, partition: int) -> FirstCrash:
        cell = int(self._rng.integers(len(CELLS)))
        return FirstCrash(
            at_ms=at_ms - 100,
            cell=CELLS[cell],
            group=(partition + cell) % GROUPS,
            exposed=int(self._rng.random() < 0.2),
            tenant=(partition + cell) % GROUPS,
            signature=f"driver-{int(self._rng.integers(50))}.sys|0xd1",
            scored=True,
            kind="bsod",
        )

    def _window(self, place: int, partition: int, **fields: object) -> CohortWindow:
        one = self.watched[place]
        made = CohortWindow(
            rollout=one.rollout, vendor=one.vendor, product=one.product, version="2", origin_ms=_BEGIN_MS
        )
        for name, value in fields.items():
            setattr(made, name, value)
        self._crashes[place, partition] += len(made.crashes)
        made.crash_total, made.exposed_total = int(self._crashes[place, partition]), 22 * len(CELLS)
        return made

    def _step(self, partition: int, at_ms: int, windows: Sequence[CohortWindow | msgspec.Raw]) -> bytes:
        since, self._since[partition] = self._since[partition], at_ms
        step = Step(
            partition=partition,
            generation=1,
            offsets={},
            since_ms=since,
            watermark_ms=at_ms,
            crash_watermark_ms=at_ms,
        )
        return (
            encoder.encode(step)[:-1].replace(b',"windows":[]', b"") + b',"windows":' + encoder.encode(windows) + b"}"
        )


class Cost(NamedTuple):
    """What one minute cost.

    Attributes:
        seconds: processor time of the minute.
        worst_seconds: that of its costliest second.
        kilobytes: memory a rollout, after two minutes.
        verdicts: how many were said in it.
    """

    seconds: float
    worst_seconds: float
    kilobytes: float
    verdicts: int


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def _set_aside() -> float:
    began = time.process_time()
    set_aside()
    return time.process_time() - began


class Run:
    """One stage under load."""

    def __init__(self, rollouts: int) -> None:
        self._topics = Topics(device_partitions=PARTITIONS)
        self._load = Load(rollouts, self._topics, seed=5)
        gc.collect()
        self._before_bytes = _resident_bytes()
        self._stage = DetectionStage(self._topics, 0, load(), rollouts_max=rollouts)
        self._rollouts, self._cohorts = self._stage.inputs
        self._offset = 0
        self.said = 0
        records = [Record(number, None, value, _BEGIN_MS) for number, value in enumerate(self._load.declarations())]
        self._stage.apply(self._rollouts, records)
        self._stage.outputs()

    def _feed(self, value: bytes, at_ms: int) -> float:
        record = Record(self._offset, None, value, at_ms)
        self._offset += 1
        began = time.process_time()
        self._stage.apply(self._cohorts, [record])
        self.said += len(self._stage.outputs())
        return time.process_time() - began

    def minute(self, begin_ms: int) -> list[float]:
        """Run a minute of event time and return the processor time of each of its seconds."""
        seconds = []
        for second in range(60):
            spent = 0.0
            for tick in range(4):
                at_ms = begin_ms + second * 1000 + (tick + 1) * _TICK_MS
                # The first step that has passed a rollout's minute is the full one.
                steps = self._load.full(at_ms) if tick == 0 else self._load.quarter(at_ms)
                spent += sum(self._feed(value, at_ms) for value in steps)
            if second % ASIDE_SECONDS == 0:
                spent += _set_aside()
            seconds.append(spent)
        return seconds

    def cost(self) -> Cost:
        """Run two minutes: the first lets every cell be met, the second is the one that counts."""
        # Set aside by event time, below: the processor time of it counts.
        with sparing_collections(aside_seconds=WHOLE_SECONDS):
            self.minute(_BEGIN_MS)
            before = self.said
            seconds = self.minute(_BEGIN_MS + _MINUTE_MS)
        used = (_resident_bytes() - self._before_bytes) / 1024 / len(self._load.watched)
        return Cost(sum(seconds), max(seconds), used, self.said - before)


def measure() -> list[Figure]:
    """Return the figures of the stage's cost."""
    costs = {rollouts: Run(rollouts).cost() for rollouts in ROLLOUTS}
    most = ROLLOUTS[-1]
    figures = []
    for rollouts, cost in costs.items():
        text = f"a second of event time, {rollouts:,} rollouts of {len(CELLS)} cells"
        second, unit = cost.seconds / 60, "s of a core"
        figures.append(at_most(text, second, unit, 1.0) if rollouts == most else printed(text, second, unit))
        figures.append(printed(f"... a rollout and minute of {rollouts:,}", 1000 * cost.seconds / rollouts, "ms"))
    for fewer in ROLLOUTS[:-1]:
        ratio = (costs[most].seconds / most) / (costs[fewer].seconds / fewer)
        figures.append(at_most(f"cost a rollout, of {most:,} to of {fewer:,}", ratio, "times", 1.3))
    last = costs[most]
    text = f"the costliest second of the minute, {most:,} rollouts"
    figures.append(at_most(text, last.worst_seconds, "s of a core", 1.0))
    figures.append(printed(f"verdicts in that minute, {most:,} rollouts", last.verdicts, "verdicts"))
    figures.append(printed("memory a rollout after two minutes", last.kilobytes, "kB"))
    return figures
