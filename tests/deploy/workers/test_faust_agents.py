"""Agents on a log in memory, given events as Faust gives them at its worst: none of it reaches the results."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from faust.types import TP

from deploy.workers import driver
from deploy.workers.agents import Agents
from deploy.workers.detection import DetectionParts, detection_share
from deploy.workers.driver import Standing
from deploy.workers.faust_app import SinceMessage
from deploy.workers.keyed import KeyedShares
from detectors.policy import load as load_policies
from ingest.clock import DrivenClock
from ingest.log.feed import Feed
from ingest.log.interface import Entry, FencedError, Record, TopicPartition
from ingest.log.kafka.connection import Connection
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from support.cohorts import FleetPlan, rollout, simulate, steady
from support.keyed import Embedded, declare, entries_of, keyed_settings, values_of
from support.switches import START_MS

TOPICS = Topics("agents", 2, 1)
COHORTS = TopicPartition(TOPICS.name("cohorts"), 0)
VERDICTS = TopicPartition(TOPICS.name("verdicts"), 0)
NOWHERE = Connection(bootstrap=("127.0.0.1:9",), timeout_ms=500, session_ms=500)
PLAN = FleetPlan(seed=19, devices=85_000, ratio=1e6, background=2e-8, seconds=20)


@dataclass
class FakeConsumer:
    """What agents ask of Faust's consumer."""

    acknowledged: list[int] = field(default_factory=list)
    paused: set[TP] = field(default_factory=set)

    def ack(self, message: SinceMessage) -> bool:
        self.acknowledged.append(message.offset)
        return True

    def pause_partitions(self, tps: Collection[TP]) -> None:
        self.paused |= set(tps)

    def resume_partitions(self, tps: Collection[TP]) -> None:
        self.paused -= set(tps)


class FakeStream:
    """A Faust stream over ready-made messages."""

    def __init__(self, app: Any, messages: Iterable[SinceMessage]) -> None:
        self._app, self._messages = app, messages

    def noack(self) -> "FakeStream":
        return self

    async def events(self) -> AsyncIterator[Any]:
        for message in self._messages:
            yield SimpleNamespace(app=self._app, message=message)
            await asyncio.sleep(0)


def message_of(source: TopicPartition, record: Record, since: int | None = None) -> SinceMessage:
    made = SinceMessage(
        source.topic,
        source.partition,
        record.offset,
        record.appended_at_ms / 1000.0,
        1,
        None,
        record.key,
        record.value,
        None,
        tp=TP(*source),
    )
    made.since = record.offset if since is None else since
    made.end = 0
    made.refcount = 1
    return made


def records_of(log: MemoryLog, source: TopicPartition) -> list[Record]:
    return log.read(source, 0, 100_000, 1 << 30)


class Rig:
    """Agents without an app: what Faust would call is called by the test."""

    def __init__(self, shares: Any, topics: Sequence[str], feed_bytes_max: int = 1 << 20) -> None:
        self.shares = shares
        self.consumer = FakeConsumer()
        self.app: Any = SimpleNamespace(consumer=self.consumer)
        self.failures: list[BaseException] = []
        self.agents = Agents(
            NOWHERE, "group", "test", topics, shares, Metrics(), stage_word="detection", feed_bytes_max=feed_bytes_max
        )
        shares.begin(self.failures.append)

    async def give(self, messages: Iterable[SinceMessage]) -> None:
        await self.agents.take(FakeStream(self.app, messages))

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                self.agents.tend(self.app)
                await asyncio.sleep(0.01)


def detection_shares(log: MemoryLog, **settings: Any) -> KeyedShares:
    parts = DetectionParts(
        log=log,
        topics=TOPICS,
        settings=keyed_settings(TOPICS, **settings),
        policies=load_policies(),
        words=None,
        clock=DrivenClock(START_MS),
        metrics=Metrics(),
    )
    return KeyedShares(
        lambda number, on_end: detection_share(parts, number, on_end),
        COHORTS.topic,
        Metrics(),
        stage_word="detection",
        retry_seconds=0.3,
    )


@pytest.fixture
def quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares look behind their feed sooner than every five seconds."""
    monkeypatch.setattr(driver, "BACKLOG_EVERY_SECONDS", 0.2)
    monkeypatch.setattr(driver, "WAIT_SECONDS", 0.05)


def mangled(draw: random.Random, records: Sequence[Record]) -> list[SinceMessage]:
    """Return messages as a Faust consumer might hand them over that loses, repeats, jumps and starts anywhere."""
    messages: list[SinceMessage] = []
    # A start at an offset committed ahead of the state, or far behind it.
    position = draw.randrange(len(records))
    for _ in range(60):
        batch = records[position : position + draw.randrange(1, 40)]
        since = None
        for record in batch:
            # Records vanish out of a batch, too: then the next one's `since` speaks of one that never came.
            if draw.random() > 0.05:
                messages.append(message_of(COHORTS, record, since))
            since = record.offset + 1
        position += len(batch)
        jump = draw.choice([0, 0, 0, draw.randrange(60), -draw.randrange(60)])
        position = min(max(position + jump, 0), len(records) - 1)
    return messages


@pytest.mark.usefixtures("quick_look")
@pytest.mark.parametrize("seed", range(4))
def test_lost_repeated_and_skipped_events_change_no_verdict(seed: int) -> None:
    steps = list(simulate(PLAN))
    embedded = Embedded(TOPICS)
    embedded.run(rollout(), steps=steps)
    expected = values_of(embedded.log, VERDICTS)
    assert b'"kill"' in expected[-1]
    log = MemoryLog(topic_specs(TOPICS), DrivenClock(START_MS))
    declare(log, TOPICS, rollout())
    entries = entries_of(TOPICS, steps)
    draw = random.Random(seed)

    async def run() -> None:
        rig = Rig(detection_shares(log), [COHORTS.topic])
        log.append(entries[:50])
        rig.shares.assign([COHORTS])
        log.append(entries[50:])
        messages = mangled(draw, records_of(log, COHORTS))
        half = len(messages) // 2
        await rig.give(messages[:half])
        # A rebalance in the middle: the share ends and another begins, from its state.
        await rig.shares.revoke(5.0)
        rig.shares.assign([COHORTS])
        await rig.give(messages[half:])
        await rig.until(lambda: values_of(log, VERDICTS)[-1:] == expected[-1:])
        await rig.shares.revoke(5.0)
        assert not rig.failures

    asyncio.run(run())
    said = values_of(log, VERDICTS)
    # What was said since the last chunk of state is said again after the rebalance, the same.
    assert list(dict.fromkeys(said)) == expected


def test_events_are_acknowledged_in_order_and_not_before_they_are_flushed() -> None:
    log = MemoryLog(topic_specs(TOPICS), DrivenClock(START_MS))
    declare(log, TOPICS, rollout())

    async def run() -> None:
        rig = Rig(detection_shares(log), [COHORTS.topic])
        rig.shares.assign([COHORTS])
        await rig.until(lambda: rig.shares.feed_of(COHORTS) is not None)
        log.append(entries_of(TOPICS, [steady(partition=0), steady(partition=1)]))
        log.unavailable = True
        messages = [message_of(COHORTS, record) for record in _peek(log)]
        await rig.give(messages)
        for _ in range(20):
            rig.agents.tend(rig.app)
            await asyncio.sleep(0.01)
        assert rig.consumer.acknowledged == []
        assert all(message.value is None for message in messages)
        log.unavailable = False
        await rig.until(lambda: len(rig.consumer.acknowledged) == 2)
        assert rig.consumer.acknowledged == [0, 1]
        assert values_of(log, VERDICTS)
        await rig.shares.revoke(5.0)

    asyncio.run(run())


def _peek(log: MemoryLog) -> list[Record]:
    log.unavailable = False
    try:
        return records_of(log, COHORTS)
    finally:
        log.unavailable = True


@dataclass
class Bare:
    """Shares of nothing but a feed."""

    feed: Feed
    done: int = 0
    fail_at: int = -1
    unfed: bool = False
    on_failure: Callable[[BaseException], None] = lambda _: None
    revoked: int = 0

    def begin(self, on_failure: Callable[[BaseException], None]) -> None:
        self.on_failure = on_failure

    def assign(self, sources: Collection[TopicPartition]) -> None:
        pass

    def tend(self) -> None:
        pass

    def feed_of(self, source: TopicPartition) -> Feed | None:
        self.fail_at -= 1
        if self.fail_at == 0:
            raise RuntimeError("as a test ordered")
        return self.feed

    def flushed(self, source: TopicPartition) -> int:
        return self.done

    async def revoke(self, timeout_seconds: float) -> None:
        self.revoked += 1

    def standings(self) -> list[Standing]:
        return []


def bare(bytes_max: int = 1 << 20) -> Bare:
    return Bare(Feed(MemoryLog(topic_specs(TOPICS), DrivenClock(START_MS)), [COHORTS], bytes_max))


def test_an_event_that_cannot_be_pushed_stays_unacknowledged_and_the_agent_lives_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        rig = Rig(bare(), [COHORTS.topic])
        rig.shares.fail_at, rig.shares.done = 2, 100
        await rig.give(message_of(COHORTS, Record(offset, None, b"x", 1)) for offset in range(4))
        rig.agents.tend(rig.app)
        assert rig.consumer.acknowledged == [0, 2, 3]
        assert [record.offset for record in rig.shares.feed.read(COHORTS, 2)] == [2, 3]

    asyncio.run(run())
    assert "could not be pushed" in caplog.text


def test_a_poison_record_is_dead_lettered_with_its_place_and_the_next_are_used() -> None:
    log = MemoryLog(topic_specs(TOPICS), DrivenClock(START_MS))
    declare(log, TOPICS, rollout())
    poison = [Entry(*COHORTS, None, value) for value in (b"{", b"\xff" * 50_000)]

    async def run() -> None:
        rig = Rig(detection_shares(log), [COHORTS.topic])
        rig.shares.assign([COHORTS])
        log.append([*poison, *entries_of(TOPICS, [steady(partition=0), steady(partition=1)])])
        await rig.give(message_of(COHORTS, record) for record in records_of(log, COHORTS))
        await rig.until(lambda: rig.consumer.acknowledged == [0, 1, 2, 3])
        await rig.shares.revoke(5.0)
        assert not rig.failures

    asyncio.run(run())
    letters = [msgspec.json.decode(value) for value in values_of(log, TopicPartition(TOPICS.name("deadletter"), 0))]
    assert [(one["reason"], one["topic"], one["partition"], one["offset"]) for one in letters] == [
        ("unreadable", COHORTS.topic, 0, 0),
        ("unreadable", COHORTS.topic, 0, 1),
    ]
    assert all(len(one["value"]) < 12_000 for one in letters)
    assert values_of(log, VERDICTS)


def test_a_tombstone_is_passed_on_and_acknowledged() -> None:
    async def run() -> None:
        rig = Rig(bare(), [COHORTS.topic])
        rig.shares.done = 1
        await rig.give([message_of(COHORTS, Record(0, b"key", None, 1))])
        assert rig.shares.feed.read(COHORTS, 0) == [Record(0, b"key", None, 1)]
        rig.agents.tend(rig.app)
        assert rig.consumer.acknowledged == [0]

    asyncio.run(run())


def test_a_full_feed_pauses_its_partition_until_half_of_it_is_read() -> None:
    async def run() -> None:
        rig = Rig(bare(bytes_max=100), [COHORTS.topic], feed_bytes_max=100)
        await rig.give(message_of(COHORTS, Record(offset, None, b"x" * 30, 1)) for offset in range(4))
        assert rig.consumer.paused == {TP(*COHORTS)}
        rig.shares.feed.read(COHORTS, 1)
        rig.agents.tend(rig.app)
        assert rig.consumer.paused == {TP(*COHORTS)}
        rig.shares.feed.read(COHORTS, 3)
        rig.agents.tend(rig.app)
        assert rig.consumer.paused == set()

    asyncio.run(run())


def test_a_share_that_fails_ends_the_service_with_its_error_though_kafka_is_away() -> None:
    class BrokenError(Exception):
        pass

    async def run() -> None:
        shares = bare()
        agents = Agents(NOWHERE, "group", "test", [COHORTS.topic], shares, Metrics(), stage_word="detection")
        await agents.start()
        await asyncio.sleep(0.2)
        assert not agents.crashed
        shares.on_failure(BrokenError())
        async with asyncio.timeout(20):
            await agents.wait_until_stopped()
        assert isinstance(agents.crash_reason, BrokenError)
        assert shares.revoked

    asyncio.run(run())


def test_a_share_whose_fence_was_taken_is_made_anew_after_a_pause() -> None:
    log = MemoryLog(topic_specs(TOPICS), DrivenClock(START_MS))
    declare(log, TOPICS, rollout())

    async def run() -> None:
        rig = Rig(detection_shares(log), [COHORTS.topic])
        rig.shares.assign([COHORTS])
        await rig.until(lambda: rig.shares.standings()[0].progress > 3)
        first = rig.shares.feed_of(COHORTS)
        other = log.claim("detection/0")
        log.append(entries_of(TOPICS, [steady(partition=0), steady(partition=1)]))
        await rig.give(message_of(COHORTS, record) for record in records_of(log, COHORTS))
        await rig.until(lambda: rig.shares.feed_of(COHORTS) is None)
        assert values_of(log, VERDICTS) == []
        await rig.until(lambda: bool(values_of(log, VERDICTS)))
        assert rig.shares.feed_of(COHORTS) is not first
        with pytest.raises(FencedError):
            log.check(other)
        assert not rig.failures
        await rig.shares.revoke(5.0)

    asyncio.run(run())
