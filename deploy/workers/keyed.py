"""The shares of detection or signals that one worker owns: one for each keyed partition dealt to it.

The agents (`deploy.workers.agents`) say what was dealt and push what comes; this makes, ends and restarts the shares.
The group decides who should own a partition, the fence decides who may write for it. State is small here, so a share
ends with each rebalance and is made anew after it, from its state in the log.

Invariants: at most one living share of a partition here; a share whose fence was taken is made anew only after a pause,
in which a member that was away has learned that it is one no more; any other failure is passed on, never swallowed.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from deploy.workers.driver import ShareDriver, Standing
from ingest.log.feed import Feed
from ingest.log.interface import FencedError, TopicPartition
from ingest.metrics import Metrics

LOOK_SECONDS = 0.01

logger = logging.getLogger(__name__)

OnEnd = Callable[[ShareDriver, BaseException | None], None]


@dataclass(frozen=True, slots=True)
class KeyedShare:
    """One share: what is pushed to it, and what drives it.

    Attributes:
        number: the keyed partition.
        sources: the partitions that agents push; who is dealt the first one owns the share.
        feed: what they are pushed to.
        driver: runs its Owner.
    """

    number: int
    sources: Sequence[TopicPartition]
    feed: Feed
    driver: ShareDriver


class KeyedShares:
    """The shares of one stage; every method but `standings` and `owned` is called in the event loop."""

    def __init__(
        self,
        make: Callable[[int, OnEnd], KeyedShare],
        leading: str,
        metrics: Metrics,
        *,
        stage_word: str,
        retry_seconds: float,
    ) -> None:
        """Own nothing yet.

        Args:
            make: makes the share of a partition; what it is given is called in the share's thread when it ends.
            leading: the topic whose owner owns the share.
            metrics: gets how many are owned.
            stage_word: label of that metric.
            retry_seconds: pause before a share whose fence was taken is made anew.
        """
        self._make, self._leading, self._metrics = make, leading, metrics
        self._stage_word, self._retry_seconds = stage_word, retry_seconds
        self._shares: dict[int, KeyedShare] = {}
        self._owned: set[int] = set()
        self._not_before: dict[int, float] = {}
        # What shares that ended had flushed: events that are still here may be acknowledged up to it.
        self._flushed: dict[TopicPartition, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_failure: Callable[[BaseException], None] = lambda _: None

    def begin(self, on_failure: Callable[[BaseException], None]) -> None:
        """Take the running loop, and whom to tell there that a share failed for good."""
        self._loop, self._on_failure = asyncio.get_running_loop(), on_failure

    def assign(self, sources: Collection[TopicPartition]) -> None:
        """Own exactly these partitions; shares begin to load, and nothing is waited for."""
        self._owned = {source.partition for source in sources if source.topic == self._leading}
        self._flushed.clear()
        self._metrics.set("owned_partitions", len(self._owned), stage=self._stage_word)
        self.tend()

    def tend(self) -> None:
        """Make what is owned and does not live."""
        now = time.monotonic()
        for number in sorted(self._owned - self._shares.keys()):
            if self._not_before.get(number, 0.0) <= now:
                self._not_before.pop(number, None)
                share = self._shares[number] = self._make(number, self._ended_in_thread)
                share.driver.start()

    @property
    def owned(self) -> frozenset[int]:
        """The keyed partitions dealt to this process; any thread."""
        return frozenset(self._owned)

    def feed_of(self, source: TopicPartition) -> Feed | None:
        """Return where records of a partition are pushed; None: nobody here can take them now."""
        share = self._shares.get(source.partition)
        return share.feed if share is not None and source in share.sources else None

    def flushed(self, source: TopicPartition) -> int:
        """Return the offset before which everything of a partition is applied and flushed; 0 where it is not known."""
        share = self._shares.get(source.partition)
        known = self._flushed if share is None else share.driver.flushed
        return known.get(source, 0)

    @property
    def unfed(self) -> bool:
        """Whether a share found records in the log that its agent had not pushed."""
        return any(share.driver.unfed for share in list(self._shares.values()))

    def standings(self) -> list[Standing]:
        """Return what the watchdog asks, of every share; any thread."""
        return [share.driver.standing for share in list(self._shares.values())]

    async def revoke(self, timeout_seconds: float) -> None:
        """End every share after what it applied is flushed; bounded, and what is not through in time is let go."""
        self._owned = set()
        shares = list(self._shares.values())
        for share in shares:
            share.driver.ask_to_stop()
        for _ in range(int(timeout_seconds / LOOK_SECONDS)):
            if all(share.driver.ended for share in shares):
                break
            await asyncio.sleep(LOOK_SECONDS)
        self._forget(shares)
        self._metrics.set("owned_partitions", 0, stage=self._stage_word)

    def _forget(self, shares: Iterable[KeyedShare]) -> None:
        for share in shares:
            if not share.driver.ended:
                logger.warning("%s did not end in time and is let go: its fence keeps it harmless", share.driver.name)
            self._shares.pop(share.number, None)
            self._flushed.update(share.driver.flushed)
            # Whatever its thread is about to ask of the log, a claim above all, is refused from here on.
            share.feed.close()

    def _ended_in_thread(self, driver: ShareDriver, error: BaseException | None) -> None:
        loop = self._loop
        if error is not None and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._ended, driver, error)

    def _ended(self, driver: ShareDriver, error: BaseException) -> None:
        share = next((one for one in self._shares.values() if one.driver is driver), None)
        if share is None:
            return
        self._forget([share])
        if isinstance(error, FencedError):
            self._not_before[share.number] = time.monotonic() + self._retry_seconds
        else:
            self._on_failure(error)
