"""Grouping's service with a consumer of the test's: fed, held up, refused, and sent away."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, OffsetOutOfRangeError, TopicAuthorizationFailedError
from aiokafka.structs import TopicPartition as Assigned

from deploy.workers import grouping
from deploy.workers.grouping import GroupingService, consumer_arguments
from deploy.workers.shares import plan_of
from ingest.clock import WallClock
from ingest.log.interface import Entry, LogError, TopicPartition
from ingest.log.kafka.connection import Connection
from ingest.log.memory import MemoryLog
from ingest.log.owner import GapError
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics
from support.grouping_child import HastyClock
from support.grouping_history import History

TOPICS = Topics("service", 2)
SETTINGS = Settings(lane="service", device_partitions=2, devices_max=20_000, kafka_session_ms=2000)
CONNECTION = Connection(("127.0.0.1:1",), timeout_ms=500)


@dataclass
class Fetched:
    """A record as aiokafka gives it."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int


class FakeKafka:
    """Consumers of one group with one member, reading a memory log.

    `raising` are raised by the next polls, each once; `raising_always` by every one.
    """

    def __init__(self) -> None:
        self.log = MemoryLog(topic_specs(TOPICS), WallClock())
        self.partitions = 2
        self.raising: list[Exception] = []
        self.raising_always: Exception | None = None
        self.started = 0
        self.stopped = 0
        self.committed: dict[Any, int] = {}
        self.paused_ever: set[Any] = set()

    def consumer(self, **arguments: Any) -> "FakeConsumer":
        assert arguments["enable_auto_commit"] is False
        return FakeConsumer(self)


class FakeConsumer:
    """What the service asks of aiokafka's consumer."""

    def __init__(self, kafka: FakeKafka) -> None:
        self.kafka = kafka
        self.positions: dict[Assigned, int] = {}
        self.paused: set[Assigned] = set()
        self.names: Sequence[str] = ()
        self.listener: Any = None

    async def start(self) -> None:
        self.kafka.started += 1

    def subscribe(self, names: Sequence[str], listener: Any) -> None:
        self.names, self.listener = names, listener

    def partitions_for_topic(self, name: str) -> set[int]:
        return set(range(self.kafka.partitions))

    def assignment(self) -> set[Assigned]:
        return set(self.positions)

    async def getmany(self, timeout_ms: int) -> dict[Assigned, list[Fetched]]:
        if self.kafka.raising_always is not None:
            raise self.kafka.raising_always
        if self.kafka.raising:
            raise self.kafka.raising.pop(0)
        if not self.positions:
            await self.listener.on_partitions_revoked(set())
            dealt = [Assigned(name, number) for name in self.names for number in range(2)]
            self.positions = dict.fromkeys(dealt, 0)
            await self.listener.on_partitions_assigned(dealt)
        await asyncio.sleep(0.005)
        found = {}
        for source, position in self.positions.items():
            if source not in self.paused:
                records = self.kafka.log.read(TopicPartition(*source), position, 3)
                if records:
                    found[source] = [Fetched(*record) for record in records]
                    self.positions[source] = records[-1].offset + 1
        return found

    def pause(self, *sources: Assigned) -> None:
        self.paused.update(sources)
        self.kafka.paused_ever.update(sources)

    def resume(self, *sources: Assigned) -> None:
        self.paused.difference_update(sources)

    def seek(self, source: Assigned, offset: int) -> None:
        self.positions[source] = offset

    def last_stable_offset(self, source: Assigned) -> int:
        return self.kafka.log.bounds(TopicPartition(*source))[1]

    async def commit(self, offsets: dict[Assigned, int]) -> None:
        self.kafka.committed.update(offsets)

    async def stop(self) -> None:
        self.kafka.stopped += 1


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    kafka = FakeKafka()
    monkeypatch.setattr(grouping, "AIOKafkaConsumer", kafka.consumer)
    monkeypatch.setattr(grouping, "remove_predecessors", lambda *_: 0)
    monkeypatch.setattr(grouping, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(grouping, "COMMIT_SECONDS", 0.05)
    return kafka


def make(kafka: FakeKafka, **plan: Any) -> GroupingService:
    settings = replace(plan_of(SETTINGS), **plan)
    return GroupingService(kafka.log, CONNECTION, TOPICS, settings, None, HastyClock(), Metrics())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - threads bring it about
            await asyncio.sleep(0.01)


def through(service: GroupingService, kafka: FakeKafka) -> bool:
    """Return whether both shares have flushed all there is."""
    flushed = {source: offset for share in service.shares for source, offset in share.driver.flushed.items()}
    sources = [TopicPartition(TOPICS.name(word), number) for word in ("activity", "crashes") for number in range(2)]
    return all(flushed.get(source, 0) == kafka.log.bounds(source)[1] for source in sources)


def fill(kafka: FakeKafka, turns: int) -> None:
    history = History(TOPICS)
    for _ in range(turns):
        kafka.log.append(history.step())


async def crash_of(service: GroupingService) -> BaseException | None:
    await service.start()
    async with asyncio.timeout(10):
        await service.wait_until_stopped()
    await service.stop()
    return service.crash_reason


def test_it_feeds_commits_and_leaves_in_order(kafka: FakeKafka) -> None:
    async def test() -> None:
        service = make(kafka, snapshot_seconds=1)
        fill(kafka, 60)
        await service.start()
        await until(lambda: through(service, kafka))
        await until(lambda: len(kafka.committed) == 4)
        places = {source: kafka.log.bounds(TopicPartition(*source))[1] for source in kafka.committed}
        assert all(0 < offset <= places[source] for source, offset in kafka.committed.items())
        assert kafka.log.committed("cordon-service-grouping", TopicPartition(TOPICS.name("crashes"), 0)) is None
        assert {standing.name for standing in service.standings()} == {
            "grouping/0",
            "grouping/1",
            "grouping's consumer",
        }
        assert not any(standing.waiting for standing in service.standings())
        await service.stop()
        assert service.crash_reason is None
        assert (kafka.started, kafka.stopped) == (1, 1)

    asyncio.run(test())


def test_a_full_feed_pauses_its_partition_and_no_record_is_lost(kafka: FakeKafka) -> None:
    async def test() -> None:
        service = make(kafka, feed_bytes_max=2000)
        fill(kafka, 100)
        await service.start()
        await until(lambda: through(service, kafka))
        held = [share.feed.held_bytes(source) for share in service.shares for source in share.sources]
        assert max(held) < 20_000, "one poll's records beyond the bound at most"
        await service.stop()

    asyncio.run(test())


def test_a_connection_that_breaks_is_made_anew_and_shares_keep_their_state(kafka: FakeKafka) -> None:
    async def test() -> None:
        service = make(kafka)
        fill(kafka, 20)
        await service.start()
        await until(lambda: through(service, kafka))
        generations = [share.driver.generation for share in service.shares]
        kafka.raising = [KafkaConnectionError("gone") for _ in range(20)]
        fill(kafka, 20)
        await until(lambda: not kafka.raising and through(service, kafka) and len(service.shares) == 2)
        assert kafka.started == kafka.stopped + 1 == 21
        assert [share.driver.generation for share in service.shares] == generations
        await service.stop()
        assert service.crash_reason is None

    asyncio.run(test())


def test_a_kafka_that_refuses_time_and_again_ends_the_service(kafka: FakeKafka) -> None:
    kafka.raising_always = TopicAuthorizationFailedError("activity")
    reason = asyncio.run(crash_of(make(kafka)))
    assert isinstance(reason, LogError)
    assert "access rights to the group cordon-service-grouping" in str(reason)


def test_a_position_the_log_does_not_have_ends_the_service(kafka: FakeKafka) -> None:
    kafka.raising_always = OffsetOutOfRangeError({Assigned("activity", 0): 5})
    assert isinstance(asyncio.run(crash_of(make(kafka))), GapError)


def test_other_partitions_than_the_settings_say_end_the_service(kafka: FakeKafka) -> None:
    kafka.partitions = 4
    reason = asyncio.run(crash_of(make(kafka)))
    assert "has 4 partitions where device_partitions says 2" in str(reason)


def test_a_share_that_fails_ends_the_service(kafka: FakeKafka) -> None:
    kafka.log.append([Entry(TOPICS.name("fleet"), 1, b"1/memory", b"\x81\xa6schema\x63")])
    reason = asyncio.run(crash_of(make(kafka)))
    assert "start a new lane" in str(reason)


def test_the_consumers_time_outs_hold_together() -> None:
    for session_ms in (1000, 8000, 300_000):
        plan = plan_of(Settings(kafka_session_ms=session_ms))
        arguments = consumer_arguments(CONNECTION, plan)
        assert 3 * arguments["heartbeat_interval_ms"] <= session_ms
        assert arguments["heartbeat_interval_ms"] <= 1000
        assert arguments["rebalance_timeout_ms"] < arguments["request_timeout_ms"]
        assert arguments["max_poll_interval_ms"] > 2 * session_ms
        assert arguments["auto_offset_reset"] == "none"
