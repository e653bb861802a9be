"""Keeps an eye on all shares of the work, from one process: follows their words, judges, exports.

Runs in every process that must know whether Cordon sees: workers with detection, and signals. The invariant: it only
listens; whoever must not go on blindly asks `sight` or `doubts` at the moment that counts.
"""

import asyncio

from deploy.distributed.base import Base
from deploy.distributed.follower import ProgressFollower
from ingest.sight import Sight, Watch, limits_of, shares_of

EXPOSE_SECONDS = 1.0


class Lookout:
    """A watch over one lane, with the follower that feeds it; a `SightSource`."""

    def __init__(self, base: Base) -> None:
        """Prepare; nothing is heard before `start`."""
        settings = base.settings
        limits = limits_of(settings.blind_seconds, settings.lag_records_max, settings.lane)
        self._watch = Watch(shares_of(base.topics), limits, base.metrics, base.clock)
        self._follower = ProgressFollower(base.log, base.topics)
        self._follower.listen(self._watch.heard)
        self._exposing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen; call it in the running loop."""
        self._follower.start()
        self._exposing = asyncio.create_task(self._expose())

    async def stop(self) -> None:
        """Listen no more."""
        if self._exposing is not None:
            self._exposing.cancel()
            await asyncio.to_thread(self._follower.stop)

    def sight(self) -> Sight:
        """Return whether Cordon sees now; any thread."""
        return self._watch.sight()

    def doubts(self) -> list[str]:
        """Return which shares are not seen, for verdicts; any thread."""
        return self._watch.doubts()

    async def _expose(self) -> None:
        while True:
            self._watch.expose()
            await asyncio.sleep(EXPOSE_SECONDS)
