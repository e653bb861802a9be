"""A small simulated fleet at the level of cohort windows: steps for the detection stage, without grouping."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from detectors.policy import Policies, load
from detectors.stage import DetectionStage
from detectors.verdict import DecisionWord, Verdict, verdict_decoder
from ingest.events import encoder
from ingest.log.interface import Entry, Record, TopicPartition
from ingest.rollouts import Bound, Ring, Rollout, rollout_id
from ingest.topics import Topics
from ingest.windows import AtRisk, CohortWindow, FirstCrash, HeardMinute, Step

T0 = 1_721_362_140_000  # 2024-07-19T04:09:00Z
ROLLOUT = rollout_id("contoso", "sensor", "291")
CELLS = ("22631|laptop|early|old|recent", "19045|desktop|early|old|recent", "20348|server|early|old|recent")


def rollout(bound: Bound = Bound.OFFERED, rings: Sequence[Ring] = (), **changes: object) -> Rollout:
    """Return the rollout the simulated windows speak of."""
    made = Rollout(
        rollout=ROLLOUT,
        vendor="contoso",
        product="sensor",
        update_kind="content",
        version="291",
        origin_ms=T0,
        bound=bound,
        rings=list(rings),
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def window(**fields: object) -> CohortWindow:
    """Return a window of the rollout with some fields set."""
    made = CohortWindow(rollout=ROLLOUT, vendor="contoso", product="sensor", version="291", origin_ms=T0)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def step(partition: int, since_ms: int, watermark_ms: int, *windows: CohortWindow, **fields: object) -> Step:
    """Return a step with some fields set; the crash topic is read as far as activity unless told otherwise."""
    made = Step(
        partition=partition,
        generation=1,
        offsets={},
        since_ms=since_ms,
        watermark_ms=watermark_ms,
        crash_watermark_ms=watermark_ms,
        windows=list(windows),
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def crash(at_ms: int, exposed: int, cell: str = CELLS[0], tenant: int = 0, **fields: object) -> FirstCrash:
    """Return a first crash."""
    values: dict[str, object] = {"group": tenant % 32, "signature": "csagent.sys|0x50", "scored": True, "kind": "bsod"}
    values.update(fields)
    return FirstCrash(at_ms=at_ms, cell=cell, exposed=exposed, tenant=tenant, **values)  # type: ignore[arg-type]  # test helper


@dataclass
class FleetPlan:
    """A fleet whose update spreads evenly, with crash rates per device and second."""

    seed: int = 1
    devices: int = 20_000
    partitions: int = 2
    spread_seconds: float = 4680.0
    seconds: int = 120
    background: float = 1e-7
    ratio: float = 1.0
    tenants: int = 6
    cells: Sequence[str] = CELLS
    # Devices that the windows call exposed, of those that are; the rest crash unknown, named by their reports.
    known: float = 1.0


Place = tuple[str, int]


@dataclass
class _Partition:
    control: dict[Place, int]
    exposed: dict[Place, int]
    total: int = 0
    watermark: int = 0
    told: dict[Place, tuple[int, int]] = field(default_factory=dict)


def simulate(plan: FleetPlan) -> Iterator[Step]:
    """Yield the steps of a fleet, four a second for each partition, in the order of a live log."""
    rng = np.random.default_rng(plan.seed)
    places = [(cell, tenant) for cell in plan.cells for tenant in range(plan.tenants)]
    size = plan.devices // plan.partitions // len(places)
    parts = [_Partition(dict.fromkeys(places, size), dict.fromkeys(places, 0)) for _ in range(plan.partitions)]
    for tick in range(1, plan.seconds * 4 + 1):
        now = T0 + tick * 250
        for number, part in enumerate(parts):
            crashes: list[FirstCrash] = []
            for place in places:
                moved = int(rng.binomial(part.control[place], 1 - math.exp(-0.25 / plan.spread_seconds)))
                part.control[place] -= moved
                part.exposed[place] += moved
                for arm, counts, rate in ((1, part.exposed, plan.ratio), (0, part.control, 1.0)):
                    died = int(rng.binomial(counts[place], 1 - math.exp(-0.25 * plan.background * rate)))
                    counts[place] -= died
                    crashes += [crash(now - int(rng.integers(0, 250)), arm, *place) for _ in range(died)]
            part.total += len(crashes)
            told = {place: (int(part.exposed[place] * plan.known), part.control[place]) for place in places}
            rows = [AtRisk(*place, *told[place]) for place in places if told[place] != part.told.get(place)]
            part.told = told
            since, part.watermark = part.watermark, now
            said = window(
                full=since == 0,
                at_risk=rows,
                crashes=crashes,
                crash_total=part.total,
                exposed_total=sum(part.exposed.values()),
            )
            yield step(number, since, now, said)


def heard(minute_ms: int, cell: str, sizes: tuple[int, int], silent: tuple[int, int] | None = None) -> HeardMinute:
    """Return the first word of a stratum, or with `silent` the second."""
    if silent is None:
        return HeardMinute(minute_ms, cell, 0, *sizes, 0, 0)
    return HeardMinute(minute_ms, cell, 0, 0, 0, *silent)


class Harness:
    """Feeds a stage as an Owner would, and keeps its verdicts."""

    def __init__(self, partitions: int = 2, policies: Policies | None = None, **settings: float) -> None:
        self.topics = Topics(device_partitions=partitions)
        self.policies = policies if policies is not None else load()
        self.settings = settings
        self.state: dict[bytes, bytes] = {}
        self.verdicts: list[bytes] = []
        self.dead: list[Entry] = []
        self.stage = self._make()
        self._offsets = dict.fromkeys(self.stage.inputs, 0)
        self.rollouts, self.cohorts = self.stage.inputs

    def _make(self) -> DetectionStage:
        return DetectionStage(self.topics, 0, self.policies, **self.settings)  # type: ignore[arg-type]  # keywords

    def declare(self, *declared: Rollout) -> None:
        """Append rollouts."""
        for one in declared:
            self._apply(self.rollouts, encoder.encode(one), 0)

    def feed(self, steps: Iterable[Step], append_ms: int | None = None) -> None:
        """Append steps, one record each; the log's time of append is the step's watermark unless told otherwise."""
        for one in steps:
            self._apply(self.cohorts, encoder.encode(one), one.watermark_ms if append_ms is None else append_ms)

    def raw(self, value: bytes) -> None:
        """Append anything to the cohort topic."""
        self._apply(self.cohorts, value, 0)

    def _apply(self, source: TopicPartition, value: bytes, append_ms: int) -> None:
        self.stage.apply(source, [Record(self._offsets[source], None, value, append_ms)])
        self._offsets[source] += 1
        self.collect()

    def collect(self) -> None:
        """Take what the stage has to say."""
        for entry in self.stage.outputs():
            if entry.topic == self.topics.name("verdicts"):
                assert entry.value is not None
                self.verdicts.append(entry.value)
            else:
                self.dead.append(entry)

    def snapshot(self, now_ms: int) -> list[Entry]:
        """Write the state."""
        entries = list(self.stage.snapshot(now_ms))
        for entry in entries:
            assert entry.key is not None
            if entry.value is None:
                self.state.pop(entry.key, None)
            else:
                self.state[entry.key] = entry.value
        return entries

    def restart(self) -> None:
        """Go on with a new stage, restored from the state."""
        self.stage = self._make()
        restored = self.stage.restore(list(self.state.items()))
        assert all(offset == self._offsets[source] for source, offset in restored.items())

    def said(self) -> list[Verdict]:
        """Return the verdicts so far."""
        return [verdict_decoder.decode(value) for value in self.verdicts]

    def latest(self) -> Verdict:
        """Return the latest verdict."""
        return verdict_decoder.decode(self.verdicts[-1])


def steady(exposed: int = 1000, control: int = 9000, partition: int = 0, tenants: int = 8) -> Step:
    """Return a partition's first step, naming the counts of one cell, the same for each tenant."""
    rows = [AtRisk(CELLS[0], tenant, exposed // tenants, control // tenants) for tenant in range(tenants)]
    return step(partition, 0, T0 + 250, window(full=True, at_risk=rows, exposed_total=exposed))


def crashes(count: int, number: int = 1, since_ms: int = T0 + 250, exposed: int = 1, tenants: int = 8) -> Step:
    """Return the step after `since_ms` of partition 0 with some crashes."""
    found = [crash(since_ms + 5 + i, exposed, CELLS[0], i % tenants) for i in range(count)]
    return step(0, since_ms, since_ms + 250, window(crashes=found, crash_total=number - 1 + count, exposed_total=1000))


def killed_at(harness: Harness) -> int | None:
    """Return how many exposed crashes the first kill had seen; None without a kill."""
    return next((v.evidence.crashes_exposed for v in harness.said() if v.decision is DecisionWord.KILL), None)
