"""The sink as a Faust agent on a real broker: what workers share out among them is in the store once."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.kafka.broker import LocalKafka
from deploy.workers.faust_app import group_of
from ingest.clock import WallClock
from ingest.log.interface import TopicPartition
from ingest.log.kafka.connection import connection_of
from ingest.log.kafka.log import KafkaLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.store.chdb import ChdbStore
from ingest.store.interface import Columns, Store
from ingest.store.migrate import Migrator
from ingest.topics import Topics
from support.kafka import kafka_settings, lane_on
from support.keyed import KeyedWorker, wait_for
from support.store_fleet import Fleet, counted, recount

PARTITIONS = 4


@pytest.fixture
def topics(kafka: LocalKafka) -> Iterator[Topics]:
    with lane_on(kafka, device_partitions=PARTITIONS, keyed_partitions=2, prefix="sink") as topics:
        yield topics


@pytest.fixture
def settings(kafka: LocalKafka, topics: Topics) -> Settings:
    return kafka_settings(kafka, topics, kafka_session_ms=2000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChdbStore]:
    store = ChdbStore(tmp_path / "store", "shared")
    Migrator(store).apply()
    yield store
    store.close()


def kafka_log(settings: Settings, topics: Topics, client: str) -> KafkaLog:
    return KafkaLog(
        connection_of(settings), topic_specs(topics), WallClock(), Metrics(), lane=topics.lane, client=client
    )


class DeadError(BaseException):
    """Stands for the death of a worker's sink: nothing of it runs after it."""


class Dying:
    """A store whose writer dies at an insert once it is told to, after the insert took effect."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.told = threading.Event()

    def insert(self, table: str, columns: Columns) -> None:
        self._store.insert(table, columns)
        if table != "sink_blocks" and self.told.is_set():
            raise DeadError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def owned(worker: KeyedWorker) -> float:
    return worker.metrics.value("owned_partitions", stage="store")


@pytest.mark.slow
def test_workers_that_join_leave_and_die_fill_one_store_exactly(
    settings: Settings, topics: Topics, store: ChdbStore
) -> None:
    fleet = Fleet(11)
    log = kafka_log(settings, topics, "test")
    others = [msgspec.structs.replace(settings, worker_name=f"worker-{number}") for number in (2, 3)]
    logs = [kafka_log(other, topics, other.worker_name) for other in others]
    dying = Dying(store)

    def append(batches: int) -> None:
        for _ in range(batches):
            log.append(fleet.entries(topics, batches=2, size=20))

    try:
        append(20)
        with KeyedWorker(settings, topics, log, ["store"], store) as first:
            wait_for(lambda: owned(first) == PARTITIONS, "all shares")
            append(20)
            with KeyedWorker(others[0], topics, logs[0], ["store"], dying) as second:
                wait_for(lambda: owned(first) == owned(second) == PARTITIONS / 2, "half of the shares each")
                append(20)
                dying.told.set()
                wait_for(lambda: second.agents[0].crashed, "the second worker's end")
                assert isinstance(second.agents[0].crash_reason, DeadError)
            append(10)
            wait_for(lambda: owned(first) == PARTITIONS, "all shares again")
            with KeyedWorker(others[1], topics, logs[1], ["store"], store) as third:
                append(10)
                wait_for(lambda: owned(third) == PARTITIONS / 2, "half of the shares again")
                append(10)
            append(10)
            expected = recount(fleet.made)
            wait_for(lambda: counted(store) == expected, "everything in the store")
        crashes = TopicPartition(topics.name("crashes"), 0)
        committed = log.committed(group_of("store", topics.lane), crashes)
        assert committed == log.bounds(crashes)[1]
    finally:
        for one in (log, *logs):
            one.close()
    assert counted(store) == expected
