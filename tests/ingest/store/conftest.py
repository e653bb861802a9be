"""One in-process ClickHouse per module, a database per test; and reports to fill it with."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ingest.clock import DrivenClock
from ingest.events import (
    Batch,
    BootLoop,
    Bsod,
    CheckIn,
    DiskVersion,
    Frame,
    Installed,
    Offered,
    Report,
    Tick,
    encoder,
)
from ingest.log.interface import Entry
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.store.chdb import ChdbStore
from ingest.store.interface import Store
from ingest.store.migrate import Migrator
from ingest.store.sink import Sink, SinkLimits
from ingest.topics import Topics

BASE_MS = 1_721_362_140_000


@dataclass
class Fleet:
    """Makes seeded reports as a gateway would hand them on."""

    seed: int
    made: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def report(self) -> Report:
        """Return one report of a random kind."""
        draw = self.random
        common = {
            "device": f"{draw.randrange(400):016x}",
            "seq": len(self.made) + 1,
            "at_ms": BASE_MS + draw.randrange(180_000),
            "boot_id": "b",
            "boot_at_ms": BASE_MS - 60_000,
            "os_build": draw.choice(["22631.3880", "19045.4651"]),
            "form_factor": "laptop",
            "ring": draw.choice(["canary", "broad", ""]),
            "tenant": draw.choice(["acme", "globex"]),
        }
        update = {"vendor": "CrowdStrike", "product": "Content", "version": draw.choice(["291", "290"])}
        crash = {
            "bugcheck": draw.choice([0x50, 0x7E]),
            "parameters": ["0xffff", "0x0"],
            "module": draw.choice(["csagent.sys", "amdppm.sys"]),
            "frames": [Frame(module="csagent.sys", offset=0xE14ED)],
            "versions": [
                DiskVersion(**update, activated_at_ms=BASE_MS),
                DiskVersion(vendor="MS", product="os", version="1"),
            ],
        }
        kind = draw.choice(["check_in"] * 6 + ["offered", "installed", "bsod", "boot_loop"])
        made: Report
        if kind == "check_in":
            made = CheckIn(**common)  # type: ignore[arg-type]  # Fields by name, drawn at random.
        elif kind in ("offered", "installed"):
            shape = Offered if kind == "offered" else Installed
            made = shape(**common, **update, update_kind="content")  # type: ignore[arg-type]  # As above.
        else:
            made = (Bsod if kind == "bsod" else BootLoop)(**common, **crash)  # type: ignore[arg-type]  # As above.
        self.made.append(made)
        return made

    def entries(self, topics: Topics, batches: int, size: int) -> list[Entry]:
        """Return log entries that hold `batches` times `size` new reports, split by topic, with ticks between."""
        entries = []
        for _ in range(batches):
            partition = self.random.randrange(topics.device_partitions)
            reports = [self.report() for _ in range(size)]
            for word, kinds in (("crashes", (Bsod, BootLoop)), ("activity", (CheckIn, Offered, Installed))):
                taken = [report for report in reports if isinstance(report, kinds)]
                batch = Batch(gateway="g1", received_at_ms=BASE_MS + 200_000, reports=taken)
                entries.append(Entry(topics.name(word), partition, None, encoder.encode(batch)))
                tick = Tick(gateway="g1", at_ms=BASE_MS)
                entries.append(Entry(topics.name(word), partition, None, encoder.encode(tick)))
        return entries


@pytest.fixture(scope="module")
def engine_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this module's ClickHouse."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def engine(engine_path: Path) -> Iterator[ChdbStore]:
    """Keep this module's ClickHouse open between tests: opening costs more than a test does."""
    store = ChdbStore(engine_path, "keeper")
    yield store
    store.close()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """A database name of this test's own."""
    return "t_" + "".join(c if c.isalnum() else "_" for c in request.node.name)[:100]


@pytest.fixture
def store(engine: ChdbStore, engine_path: Path, database: str) -> Iterator[ChdbStore]:
    """An empty, migrated store."""
    store = ChdbStore(engine_path, database)
    Migrator(store).apply()
    yield store
    store.execute(f"DROP DATABASE {database}")
    store.close()


@pytest.fixture
def topics() -> Topics:
    return Topics(device_partitions=3)


@pytest.fixture
def log(topics: Topics) -> MemoryLog:
    return MemoryLog(topic_specs(topics), DrivenClock(BASE_MS))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def make_sink(log: MemoryLog, topics: Topics, metrics: Metrics) -> Callable[..., Sink]:
    """Make a sink on a store, recovered, with short pauses."""

    def make(store: Store, limits: SinkLimits | None = None) -> Sink:
        chosen = limits or SinkLimits(backoff_seconds=0.001, backoff_seconds_max=0.002)
        sink = Sink(log, store, topics, metrics, DrivenClock(BASE_MS), chosen)
        sink.recover()
        return sink

    return make


@pytest.fixture
def make_fleet() -> Callable[[int], Fleet]:
    return Fleet
