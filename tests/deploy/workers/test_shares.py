"""The shares of a worker: loaded a few at a time, parked and resumed, made anew when their fence was taken."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from deploy.workers.shares import LOADS_AT_ONCE, GroupingPlan, GroupingShare, GroupingShares, plan_of
from ingest.clock import WallClock
from ingest.grouping.snapshot import StateError
from ingest.log.interface import Entry, Fence
from ingest.log.memory import MemoryLog
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import Topics
from support.grouping_history import History

PARTITIONS = 8
TOPICS = Topics("shares", PARTITIONS)
PLAN = plan_of(Settings(lane="shares", device_partitions=PARTITIONS, devices_max=80_000))


class SlowLog(MemoryLog):
    """Lets claims through when told, and counts how many wait."""

    def __init__(self) -> None:
        super().__init__(topic_specs(TOPICS), WallClock())
        self.open = threading.Event()
        self.open.set()
        self.claiming = 0

    def claim(self, name: str) -> Fence:
        self.claiming += 1
        self.open.wait(20)
        return super().claim(name)


class Rig:
    """Shares on a memory log, advanced as the poll loop does."""

    def __init__(self, log: MemoryLog, retry_seconds: float = 0.3) -> None:
        self.log, self.metrics = log, Metrics()
        self.failures: list[BaseException] = []
        self.shares = GroupingShares(
            self._make, self.metrics, retry_seconds=retry_seconds, on_failure=self.failures.append
        )

    def _make(self, number: int, on_end: Callable[[GroupingShare, BaseException | None], None]) -> GroupingShare:
        return GroupingShare(number, self.log, TOPICS, PLAN, None, WallClock(), self.metrics, on_end)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Advance until the condition holds."""
        async with asyncio.timeout(10):
            while not condition():
                self.shares.advance()
                await asyncio.sleep(0.005)

    async def until_fed(self, *numbers: int) -> dict[int, int]:
        """Advance until these are fed, and return their generations."""
        await self.until(lambda: all(self.shares.fed(number) for number in numbers))
        return {share.number: share.driver.generation for share in self.shares.all}


@pytest.fixture
def log() -> SlowLog:
    return SlowLog()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]  # a coroutine function


def test_what_is_dealt_again_is_resumed_and_the_rest_is_let_go(log: SlowLog) -> None:
    async def test() -> None:
        rig = Rig(log)
        rig.shares.assign([0, 1, 2])
        before = await rig.until_fed(0, 1, 2)
        assert rig.metrics.value("owned_partitions", stage="grouping") == 3
        await rig.shares.park(5)
        assert all(share.driver.parked for share in rig.shares.all)
        rig.shares.assign([1, 3])
        after = await rig.until_fed(1, 3)
        assert set(after) == {1, 3}
        assert after[1] == before[1], "resumed, not loaded anew"
        await rig.shares.stop(5)
        assert rig.shares.all == []
        assert rig.failures == []

    run(test)


def test_few_load_at_a_time(log: SlowLog) -> None:
    async def test() -> None:
        rig = Rig(log)
        log.open.clear()
        rig.shares.assign(range(PARTITIONS))
        for _ in range(50):
            rig.shares.advance()
            await asyncio.sleep(0.002)
        assert log.claiming == LOADS_AT_ONCE
        log.open.set()
        await rig.until_fed(*range(PARTITIONS))
        await rig.shares.stop(5)

    run(test)


def test_one_that_loads_when_a_rebalance_begins_is_let_go(log: SlowLog) -> None:
    async def test() -> None:
        rig = Rig(log)
        log.open.clear()
        rig.shares.assign([0])
        await rig.until(lambda: log.claiming == 1)
        loading = rig.shares.all[0]
        await rig.shares.park(0.05)
        assert rig.shares.all == []
        log.open.set()
        await rig.until(lambda: loading.driver.ended)
        rig.shares.assign([0])
        await rig.until_fed(0)
        await rig.shares.stop(5)
        assert rig.failures == []

    run(test)


def test_one_that_another_claimed_while_it_was_parked_is_loaded_anew_at_once(log: SlowLog) -> None:
    async def test() -> None:
        rig = Rig(log, retry_seconds=3600)
        rig.shares.assign([0])
        before = await rig.until_fed(0)
        await rig.shares.park(5)
        log.claim("grouping/0")
        rig.shares.assign([0])
        after = await rig.until_fed(0)
        assert after[0] > before[0] + 1
        await rig.shares.stop(5)

    run(test)


def test_one_whose_fence_is_taken_while_it_runs_is_made_anew_after_a_pause(log: SlowLog) -> None:
    async def test() -> None:
        rig = Rig(log)
        rig.shares.assign([0])
        before = await rig.until_fed(0)
        log.claim("grouping/0")
        history = History(TOPICS)
        share = rig.shares.all[0]
        for _ in range(5):
            log.append(history.step())
        for source in share.sources:
            share.feed.push(source, log.read(source, 0), 0)
        await rig.until(lambda: share.driver.ended and rig.shares.all == [])
        began = asyncio.get_running_loop().time()
        after = await rig.until_fed(0)
        assert asyncio.get_running_loop().time() - began > 0.2
        assert after[0] > before[0] + 1
        await rig.shares.stop(5)
        assert rig.failures == []

    run(test)


def test_a_state_that_cannot_be_read_is_a_failure(log: SlowLog) -> None:
    async def test() -> None:
        rig = Rig(log)
        log.append([Entry(TOPICS.name("fleet"), 0, b"0/memory", b"\x81\xa6schema\x63")])
        rig.shares.assign([0])
        await rig.until(lambda: bool(rig.failures))
        assert isinstance(rig.failures[0], StateError)
        assert "start a new lane" in str(rig.failures[0])

    run(test)


def test_the_feeds_of_a_worker_that_owns_everything_are_bounded() -> None:
    def total(partitions: int) -> int:
        plan: GroupingPlan = plan_of(Settings(device_partitions=partitions))
        return plan.feed_bytes_max * partitions * 2

    assert all(total(partitions) <= 256 << 20 for partitions in (1, 8, 64, 128))
    assert total(1024) == 2 << 30, "never less than a record's worth each"
