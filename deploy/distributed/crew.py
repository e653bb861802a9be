"""The services of a worker or signals process, started and ended together, and watched from outside their event loop.

Invariants: a service that fails for good ends the process, and one that stands still does too, by the watchdog; a
restart goes on from the log. Ending in order means that every share has flushed and said that it leaves.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from deploy.workers.driver import Standing
from deploy.workers.watchdog import Heartbeat, Watchdog
from deploy.workers.words import ProgressWriter
from ingest.metrics import Metrics

LOOK_SECONDS = 0.2

logger = logging.getLogger(__name__)


class Member(Protocol):
    """A service of mode's with shares or a consumer that may stand still."""

    @property
    def crashed(self) -> bool:
        """Whether it failed for good."""
        ...

    @property
    def crash_reason(self) -> BaseException | None:
        """What it failed of."""
        ...

    async def start(self) -> None:
        """Begin; does not wait for Kafka."""
        ...

    async def stop(self) -> None:
        """End in order."""
        ...

    def standings(self) -> Iterable[Standing]:
        """Return what the watchdog asks; any thread."""
        ...


class Crew:
    """Starts, watches and ends the members; one event loop."""

    def __init__(
        self,
        members: Sequence[tuple[str, Member]],
        words: ProgressWriter,
        metrics: Metrics,
        *,
        stall_seconds: float,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Take the members by role; nothing runs before `start`.

        Args:
            members: in the order in which they are started, and ended the other way round.
            words: where their shares say how far they have come.
            metrics: counts stalls.
            stall_seconds: how long a member with unread records may stand still.
            on_failure: called once, in the loop, when a member failed for good.
        """
        self._members = list(members)
        self._words = words
        self._on_failure = on_failure
        self._heartbeat = Heartbeat()
        self._watchdog = Watchdog(stall_seconds, metrics)
        self._watchdog.watch(lambda: [self._heartbeat.standing()])
        for _, member in self._members:
            self._watchdog.watch(member.standings)
        self._looking: asyncio.Task[None] | None = None
        self._started: list[tuple[str, Member]] = []

    async def start(self) -> None:
        """Start every member; none waits for Kafka."""
        self._words.start()
        for name, member in self._members:
            self._started.append((name, member))
            await member.start()
        self._heartbeat.start()
        self._watchdog.start()
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """End every member after what it has read is flushed, and say that their shares are free."""
        if self._looking is not None:
            self._looking.cancel()
        # Ending is bounded by the members themselves.
        self._heartbeat.stop()
        await asyncio.to_thread(self._watchdog.stop)
        for name, member in reversed(self._started):
            try:
                await member.stop()
            except Exception:
                # The others must be ended all the same; what this one did not flush is done again after a restart.
                logger.exception("%s did not end in order", name)
        await asyncio.to_thread(self._words.stop)

    def problems(self) -> list[str]:
        """Return which members do not run, and why."""
        started = {name for name, _ in self._started}
        found = [f"{name} has not started yet" for name, _ in self._members if name not in started]
        found += [f"{name} has failed: {member.crash_reason}" for name, member in self._started if member.crashed]
        return found

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for name, member in self._started:
                if member.crashed:
                    error = member.crash_reason or RuntimeError(f"{name} ended by itself")
                    logger.error("%s failed and this process ends; nothing acknowledged is lost: %s", name, error)
                    self._on_failure(error)
                    return
