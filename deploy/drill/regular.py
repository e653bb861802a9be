"""Drills again and again: in `cordon up` once a day, in `cordon drill --every` at an interval; and their metrics.

A drill that fails, or that could not be run, is told and counted, and the next one comes all the same. The invariant:
nothing that goes wrong in a drill ends the process it runs in.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.drill.access import Access, token_in
from deploy.drill.client import DrillClient
from deploy.drill.errors import DrillError
from deploy.drill.run import last_passed_ms, new_plan, run_drill
from detectors.drill_judge import DrillResult
from ingest.clock import Clock, WallClock
from ingest.gateway.tenants import TokenBook
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.topics import LIVE_LANE
from signals.killswitch.keys import KeyFiles

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# The machine's clock may be set: look at it at least this often.
_LOOK_SECONDS_MAX = 30.0

logger = logging.getLogger(__name__)

Told = Callable[[DrillResult | DrillError], None]


def next_daily_ms(now_ms: int, hour: int) -> int:
    """Return the next time after `now_ms` at which a UTC day's hour `hour` begins, milliseconds since the epoch.

    Example:
        >>> next_daily_ms(1_721_361_600_000, 4) - 1_721_361_600_000  # at 04:00 sharp: tomorrow's
        86400000
    """
    due_ms = now_ms // DAY_MS * DAY_MS + hour * HOUR_MS
    return due_ms if due_ms > now_ms else due_ms + DAY_MS


class RegularDrill:
    """Runs drills until stopped, in the thread that calls `run`.

    Attributes:
        metrics: where drills are counted.
    """

    def __init__(
        self,
        access: Callable[[], Access],
        next_ms: Callable[[int], int],
        clock: Clock,
        metrics: Metrics,
        told: Told,
        limit_seconds: float = 60.0,
    ) -> None:
        """Prepare.

        Args:
            access: how to get at Cordon; asked before each drill. It may raise `DrillError`.
            next_ms: gives the time of the next drill, from the present one.
            clock: the wall clock.
            metrics: where drills are counted.
            told: called with each result, or with why there is none.
            limit_seconds: how long each drill's kill may take.
        """
        self._access = access
        self._next_ms = next_ms
        self._clock = clock
        self.metrics = metrics
        self._told = told
        self._limit_seconds = limit_seconds
        self._stop = threading.Event()

    def stop(self) -> None:
        """End soon, in the middle of a drill too."""
        self._stop.set()

    def run(self) -> None:
        """Run drills until `stop`."""
        self._recall()
        due_ms = self._next_ms(self._clock.now_ms())
        while not self._stop.is_set():
            ahead_ms = due_ms - self._clock.now_ms()
            if ahead_ms > 0:
                self._stop.wait(min(ahead_ms / 1000, _LOOK_SECONDS_MAX))
                continue
            self._drill()
            due_ms = self._next_ms(self._clock.now_ms())

    def _recall(self) -> None:
        """Say when a drill passed last, so that a restart does not look like years without one."""
        try:
            client = DrillClient(self._access())
            try:
                passed_ms = last_passed_ms(client.rollouts())
            finally:
                client.close()
        except DrillError as error:
            logger.warning("when a drill passed last is not known: %s", error)
            return
        if passed_ms is not None:
            self.metrics.set("drill_last_success_timestamp", passed_ms / 1000)

    def _drill(self) -> None:
        try:
            plan = new_plan(self._clock, self._limit_seconds)
            result = run_drill(self._access(), plan, self._clock, self._stop)
        except DrillError as error:
            if not self._stop.is_set():
                self._not_run(error)
        except Exception as error:
            logger.exception("a drill ended by a fault of its own")
            self._not_run(DrillError(f"{type(error).__name__}: {error}"))
        else:
            note(self.metrics, result, plan.started_ms)
            self._told(result)

    def _not_run(self, error: DrillError) -> None:
        self.metrics.count("drills_total", result="not_run")
        self._told(error)


def note(metrics: Metrics, result: DrillResult, started_ms: int) -> None:
    """Count a drill that was run.

    Args:
        metrics: the process's.
        result: how it went.
        started_ms: when it began, milliseconds since the epoch.
    """
    metrics.count("drills_total", result="passed" if result.passed else "failed")
    if result.failure is not None:
        metrics.count("drill_failures_total", failure=result.failure.value)
    if result.passed and result.seconds_to_kill is not None:
        metrics.set("drill_seconds_to_kill", result.seconds_to_kill)
        metrics.set("drill_last_success_timestamp", started_ms / 1000)


def log_result(result: DrillResult | DrillError) -> None:
    """Log how a drill went: a failed one is an error, for the switch is not known to work."""
    if isinstance(result, DrillError):
        logger.error("the drill could not be run: %s", result)
    elif result.passed:
        logger.info("drill %s passed: %s", result.version, result.sentence)
    else:
        logger.error("DRILL %s FAILED (%s): %s", result.version, result.failure, result.sentence)


def daily_drill(
    settings: Settings, urls: Callable[[], Mapping[str, str]], tokens: TokenBook, metrics: Metrics
) -> RegularDrill | None:
    """Return the daily drill of a Cordon in one process, through its own listeners; None where none is wanted.

    A lane that is not live has none: its clock is a replay's to drive.

    Args:
        settings: hour and data folder.
        urls: gives the listeners' URLs by name, once they listen.
        tokens: the process's.
        metrics: the process's.
    """
    if settings.drill_hour < 0 or settings.lane != LIVE_LANE:
        return None
    data = Path(settings.data_dir)

    def access() -> Access:
        found = urls()
        return Access(
            reachable(found["reports"]), reachable(found["streams"]), token_in(data, tokens), KeyFiles(data).public()
        )

    def next_ms(now_ms: int) -> int:
        return next_daily_ms(now_ms, settings.drill_hour)

    return RegularDrill(access, next_ms, WallClock(), metrics, log_result)


def reachable(url: str) -> str:
    """Return the URL at which this machine reaches a listener of its own that may be bound to every address.

    Example:
        >>> reachable("http://0.0.0.0:8400"), reachable("http://[::]:8400"), reachable("http://10.0.0.1:8400")
        ('http://127.0.0.1:8400', 'http://[::1]:8400', 'http://10.0.0.1:8400')
    """
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
