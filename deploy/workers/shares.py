"""The grouping shares of one worker: which it owns, which are loading, fed, or parked between two deals.

The consumer's side (`deploy.workers.grouping`) says what was dealt and feeds what is ready; this keeps the shares
themselves. The group decides who should own a partition, the fence decides who may write for it: a share that lost its
fence while the group still deals it to this worker is made anew, after a pause in which a member that was away has
learned that it is one no more.

Invariants: at most one living share of a partition here; at most `LOADS_AT_ONCE` load at a time, which bounds the
memory that loading takes; nothing here waits for Kafka in the event loop.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from deploy.workers.driver import ShareDriver, Standing, Words
from ingest.clock import Clock
from ingest.grouping.snapshot import STATE_SCHEMA_WRITTEN
from ingest.grouping.stage import GroupingSettings, GroupingStage, state_schema_of
from ingest.log.feed import Feed
from ingest.log.interface import FencedError, Log, TopicPartition
from ingest.log.owner import Owner
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import LIVE_LANE, Topics

STAGE = "grouping"
DEVICE_WORDS = ("activity", "crashes")
LOADS_AT_ONCE = 4
LOOK_SECONDS = 0.01
# Over all feeds of a worker that owns everything: records pushed and not yet applied.
FEEDS_BYTES_MAX = 256 << 20
FEED_BYTES_LEAST = 1 << 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GroupingPlan:
    """What a grouping worker is told.

    Attributes:
        group: the consumer group.
        worker: this process's name.
        devices_max: devices over all partitions of the installation.
        silence_seconds: how long after its last word a device is silent.
        snapshot_seconds: time for one round of chunks.
        session_ms: how long a worker may be unheard of before its partitions go to others.
        eager_words: a word of progress after each step: driven lanes.
        feed_bytes_max: most bytes pushed and not yet applied, of one partition of one topic.
        state_schema: what chunks are written in.
    """

    group: str
    worker: str
    devices_max: int
    silence_seconds: int
    snapshot_seconds: int
    session_ms: int
    eager_words: bool
    feed_bytes_max: int
    state_schema: int = STATE_SCHEMA_WRITTEN


def plan_of(settings: Settings) -> GroupingPlan:
    """Return the plan that the settings describe."""
    fed = len(DEVICE_WORDS) * settings.device_partitions
    return GroupingPlan(
        group=f"cordon-{settings.lane}-grouping",
        worker=settings.worker_name,
        devices_max=settings.devices_max,
        silence_seconds=settings.silence_seconds,
        snapshot_seconds=settings.snapshot_seconds,
        session_ms=settings.kafka_session_ms,
        eager_words=settings.lane != LIVE_LANE,
        feed_bytes_max=max(FEED_BYTES_LEAST, FEEDS_BYTES_MAX // fed),
        state_schema=state_schema_of(settings.newest_schemas),
    )


class GroupingShare:
    """One device partition: its feed, stage, Owner and driver."""

    def __init__(
        self,
        number: int,
        log: Log,
        topics: Topics,
        plan: GroupingPlan,
        words: Words | None,
        clock: Clock,
        metrics: Metrics,
        on_end: Callable[["GroupingShare", BaseException | None], None],
    ) -> None:
        """Make the parts; nothing runs. `on_end` is called in the driver's thread."""
        self.number = number
        self.fed = False
        self.sources = [TopicPartition(topics.name(word), number) for word in DEVICE_WORDS]
        self.feed = Feed(log, self.sources, plan.feed_bytes_max)
        settings = GroupingSettings(
            [number], plan.devices_max, plan.silence_seconds, plan.snapshot_seconds, plan.state_schema
        )
        self.stage = GroupingStage(topics, settings, metrics)
        name = f"{STAGE}/{number}"
        state = TopicPartition(topics.name("fleet"), number)
        self.owner = Owner(self.feed, name, plan.group, self.stage, state, clock, fence_outputs=False)
        self.driver = ShareDriver(
            name,
            self.feed,
            self.owner,
            words,
            clock,
            metrics,
            stage_word=STAGE,
            reached=lambda: self.stage.watermark_ms,
            on_end=lambda _, error: on_end(self, error),
            on_started=self._know_generation,
            eager_words=plan.eager_words,
            catch_up=False,
        )

    def _know_generation(self) -> None:
        self.stage.generation = self.owner.fence.epoch


class GroupingShares:
    """The shares of one worker; every method is called in the event loop."""

    def __init__(
        self,
        make: Callable[[int, Callable[[GroupingShare, BaseException | None], None]], GroupingShare],
        metrics: Metrics,
        *,
        retry_seconds: float,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Own nothing yet.

        Args:
            make: makes the share of a partition; what it is given is called in the share's thread when it ends.
            metrics: gets how many are owned.
            retry_seconds: pause before a share whose fence was taken from it while it ran is made anew.
            on_failure: called in the event loop when a share failed for good.
        """
        self._make, self._metrics = make, metrics
        self._retry_seconds, self._on_failure = retry_seconds, on_failure
        self._shares: dict[int, GroupingShare] = {}
        self._owned: set[int] = set()
        self._not_before: dict[int, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def all(self) -> list[GroupingShare]:
        """Every share that lives here, parked ones too."""
        return list(self._shares.values())

    def fed(self, number: int) -> GroupingShare | None:
        """Return the share of a partition if it is fed now."""
        share = self._shares.get(number)
        return share if share is not None and share.fed else None

    def standings(self) -> list[Standing]:
        """Return what the watchdog asks, of every share; any thread."""
        return [share.driver.standing for share in list(self._shares.values())]

    def assign(self, numbers: Iterable[int]) -> None:
        """Own exactly these partitions: resume what is parked, let go of what is another's."""
        self._owned = set(numbers)
        for number, share in list(self._shares.items()):
            if number not in self._owned:
                self._drop(share)
            elif not share.fed:
                share.driver.resume()
        self._metrics.set("owned_partitions", len(self._owned), stage=STAGE)

    def advance(self) -> list[GroupingShare]:
        """Begin to load what there is room for; return the shares that are ready to be fed and were not before."""
        self._loop = asyncio.get_running_loop()
        ready = [share for share in self._shares.values() if not share.fed and share.driver.ready]
        for share in ready:
            share.fed = True
        loading = sum(not share.fed for share in self._shares.values())
        now = time.monotonic()
        for number in sorted(self._owned - self._shares.keys()):
            if loading < LOADS_AT_ONCE and self._not_before.get(number, 0.0) <= now:
                self._not_before.pop(number, None)
                share = self._shares[number] = self._make(number, self._ended_in_thread)
                share.driver.start()
                loading += 1
        return ready

    async def park(self, timeout_seconds: float) -> None:
        """Have every share stop writing and keep its state; bounded.

        One that still loads is let go: it might claim its fence after another was dealt it. One that still waits for an
        append to be answered rests when it is; what it writes until then, its fence and its generation make harmless.
        """
        self._owned = set()
        for share in self._shares.values():
            share.fed = False
            share.driver.ask_to_park()
        resting = [share.driver for share in self._shares.values() if share.driver.loaded]
        await _until(lambda: all(driver.parked or driver.ended for driver in resting), timeout_seconds)
        for share in self.all:
            if not share.driver.loaded or share.driver.ended:
                self._drop(share)
            elif not share.driver.parked:
                logger.info("%s does not rest yet after %g s", share.driver.name, timeout_seconds)

    async def stop(self, timeout_seconds: float) -> None:
        """End every share after what is applied is flushed; bounded."""
        self._owned = set()
        for share in self._shares.values():
            share.driver.ask_to_stop()
        await _until(lambda: all(share.driver.ended for share in self._shares.values()), timeout_seconds)
        for share in self.all:
            self._drop(share)
        self._metrics.set("owned_partitions", 0, stage=STAGE)

    def _drop(self, share: GroupingShare) -> None:
        share.fed = False
        self._shares.pop(share.number, None)
        share.driver.ask_to_stop(flush=False)
        # Whatever its thread is about to ask of the log, a claim above all, is refused from here on.
        share.feed.close()
        for name in ("fleet_devices", "crashes_pending", "watermark_ms"):
            self._metrics.forget(name, partition=str(share.number))

    def _ended_in_thread(self, share: GroupingShare, error: BaseException | None) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._ended, share, error)

    def _ended(self, share: GroupingShare, error: BaseException | None) -> None:
        if self._shares.get(share.number) is not share:
            return
        was_fed = share.fed
        self._drop(share)
        if isinstance(error, FencedError):
            # Parked meanwhile: another had it and it is ours again. Running: another believes that it owns it.
            pause = self._retry_seconds if was_fed else 0.0
            self._not_before[share.number] = time.monotonic() + pause
        elif error is not None:
            self._on_failure(error)


async def _until(condition: Callable[[], bool], timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    # Threads bring it about, not this loop: there is no event of the loop's to wait for.
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)
