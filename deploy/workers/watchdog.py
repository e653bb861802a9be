"""Notices that a worker stands still in silence, and ends its process, so that whoever supervises it starts another.

A plain thread outside Faust and asyncio, since it is these that it watches: the shares' drivers, agents, sinks, the
consumer, and the event loop itself by its heartbeat. It asks each for its `Standing` and judges by its own clock.

The invariant: whatever has something to get on with and does not for `stall_seconds` ends the process. What gets on,
however slowly, is no stall (a state that loads); nor is waiting for a Kafka that is away, which a restart won't bring
back: both change `Standing.progress`.
"""

import asyncio
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TextIO

from deploy.workers.driver import Standing
from ingest.metrics import Metrics

EXIT_CODE = 70
LOOKS_PER_STALL = 10
BEAT_SECONDS = 0.5
BACKSTOP_STALLS = 3
# A last try at leaving a trace may hang on what hangs already.
TRACE_SECONDS = 3.0

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Seen:
    progress: int
    since: float
    told: bool = False


class Heartbeat:
    """The event loop's own standing: it counts up while the loop runs its callbacks."""

    def __init__(self, name: str = "event loop", stage: str = "loop") -> None:
        """Begin with `start`, in the loop."""
        self._name, self._stage = name, stage
        self._beats = 0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat in the running loop."""
        self._beat(asyncio.get_running_loop())

    def stop(self) -> None:
        """Beat no more: from here on nothing is expected of the loop."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def standing(self) -> Standing:
        """Return it; any thread."""
        return Standing(self._name, self._stage, self._beats, self._handle is not None)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beats += 1
        self._handle = loop.call_later(BEAT_SECONDS, self._beat, loop)


class Watchdog:
    """Watches what it is given; one thread."""

    def __init__(
        self,
        stall_seconds: float,
        metrics: Metrics,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        end: Callable[[int], None] = os._exit,
        trace: TextIO | None = None,
        backstop: bool = True,
    ) -> None:
        """Watch nothing yet.

        Args:
            stall_seconds: how long what has something to get on with may stand still.
            metrics: counts `stalls_total`.
            monotonic: the clock it judges by, in seconds.
            end: ends the process with an exit code.
            trace: where all threads' stacks are written before; None: standard error.
            backstop: have the interpreter's own timer end the process, without Python, if even this thread can't look:
                something keeps the global lock. One in a process.
        """
        self._stall_seconds, self._metrics = stall_seconds, metrics
        self._monotonic, self._end, self._trace, self._backstop = monotonic, end, trace, backstop
        self._looked_at = monotonic()
        self._watched: list[Callable[[], Iterable[Standing]]] = []
        self._seen: dict[str, _Seen] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def watch(self, standings: Callable[[], Iterable[Standing]]) -> None:
        """Ask this at each look; called in the watchdog's thread, so it must not wait for what it tells of."""
        self._watched.append(standings)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._backstop:
            faulthandler.cancel_dump_traceback_later()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> list[str]:
        """Judge what is watched, once; return in words what stands still now and did not at the last look."""
        now = self._monotonic()
        if now - self._looked_at > self._stall_seconds / 2:
            # It was this process that stood still (a paused machine): nobody in it had a chance to get on.
            self._seen.clear()
        self._looked_at = now
        standings = [standing for watched in list(self._watched) for standing in watched()]
        stalled = [standing for standing in standings if self._stands_still(standing, now)]
        for gone in self._seen.keys() - {standing.name for standing in standings}:
            del self._seen[gone]
        for standing in stalled:
            self._metrics.count("stalls_total", stage=standing.stage)
        return [
            f"{standing.name} has something to get on with and has stood still for "
            f"{now - self._seen[standing.name].since:.1f} s"
            for standing in stalled
        ]

    def _stands_still(self, standing: Standing, now: float) -> bool:
        seen = self._seen.get(standing.name)
        if seen is None or seen.progress != standing.progress or not standing.waiting:
            self._seen[standing.name] = _Seen(standing.progress, now)
            return False
        if seen.told or now - seen.since < self._stall_seconds:
            return False
        seen.told = True
        return True

    def _run(self) -> None:
        while not self._stop.wait(self._stall_seconds / LOOKS_PER_STALL):
            if self._backstop:
                faulthandler.dump_traceback_later(BACKSTOP_STALLS * self._stall_seconds, exit=True)
            try:
                stalls = self.look()
            except Exception:
                # A watchdog that ended in silence would be what it watches for.
                logger.exception("the watchdog can't look")
                continue
            if stalls:
                self._put_down(stalls)

    def _put_down(self, stalls: list[str]) -> None:
        """Leave a trace and end the process; logging may hang on what hangs already, so its time is bounded."""
        tracer = threading.Thread(target=self._leave_trace, args=(stalls,), name="watchdog's trace", daemon=True)
        tracer.start()
        tracer.join(TRACE_SECONDS)
        self._end(EXIT_CODE)

    def _leave_trace(self, stalls: list[str]) -> None:
        # The stacks first: this needs no lock of Python's logging.
        faulthandler.dump_traceback(self._trace or sys.stderr, all_threads=True)
        for stall in stalls:
            logger.critical("%s: this process ends itself; state is in the log, a restart goes on from it", stall)
        for handler in logging.getLogger().handlers:
            handler.flush()


__all__ = ["EXIT_CODE", "Heartbeat", "Watchdog"]
