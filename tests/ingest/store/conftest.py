"""One in-process ClickHouse per module, a database per test; and reports to fill it with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.clock import DrivenClock
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.store.chdb import ChdbStore
from ingest.store.interface import Store
from ingest.store.migrate import Migrator
from ingest.store.sink import Sink, SinkLimits
from ingest.topics import Topics
from support.store_fleet import BASE_MS, Fleet


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
