"""The stages behind the log, in one thread: grouping, detection and signals, each driven by its Owner.

One thread is enough (a report costs it a few microseconds) and keeps the way from a crash to a kill short: each stage
reads what the one before it has just appended, without waiting to be woken. The log is still the only link between
them. The thread reads the wall clock only to notice that ticks have stopped: that is blindness, and never health.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from detectors.stage import DetectionStage
from ingest.clock import Clock
from ingest.grouping.stage import GroupingStage
from ingest.log.interface import Log, LogUnavailableError, TopicPartition
from ingest.log.owner import Owner
from ingest.metrics import Metrics
from ingest.sight import Cause, Sight, Unseen

WAIT_SECONDS = 0.25
UNAVAILABLE_SECONDS = 0.5
BACKLOG_EVERY_SECONDS = 1.0
COUNTED_POLL_SECONDS = 0.002

logger = logging.getLogger(__name__)


class Chooser(Protocol):
    """A stage that says which inputs it wants now."""

    def wants(self) -> Sequence[TopicPartition]:
        """Return the inputs to read now."""
        ...


class Pipeline:
    """Drives the owners until stopped; one thread.

    Attributes:
        failure: what ended it, if anything did.
    """

    def __init__(
        self,
        log: Log,
        grouping: tuple[GroupingStage, Owner],
        detection: tuple[DetectionStage, Owner],
        signals: Sequence[Owner],
        clock: Clock,
        metrics: Metrics,
        *,
        blind_seconds: float | None,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Take the stages; nothing is read before `start`.

        Args:
            log: what links them.
            grouping: stage and owner of all device partitions.
            detection: stage and owner of the detectors.
            signals: owners of the kill switch.
            clock: the wall clock, for blindness.
            metrics: gets the backlog of each stage.
            blind_seconds: how long the watermark may stand still; None for a driven lane, whose clock may rest.
            on_failure: called once, from the thread, when a stage fails for good.
        """
        self._log = log
        self._grouping, self._grouping_owner = grouping
        self._detection, self._detection_owner = detection
        self._owners: dict[str, Owner] = {"grouping": self._grouping_owner, "detection": self._detection_owner}
        self._owners.update({f"signals-{number}": owner for number, owner in enumerate(signals)})
        self._clock = clock
        self._metrics = metrics
        self._blind_seconds = blind_seconds
        self._on_failure = on_failure
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pipeline")
        self._moved_at = 0.0
        self._moved_to_ms = -1
        self._backlog_at = 0.0
        self._reached = threading.Condition()
        self._reached_ms = 0
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Load every stage's state and begin.

        Raises:
            LogError: a state can't be loaded, or records it needs are gone.
        """
        for owner in self._owners.values():
            owner.start()
        self._grouping.generation = self._grouping_owner.fence.epoch
        self._moved_at = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """End the thread after what it has read, and write the state that is due."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def reached_ms(self) -> int:
        """Everything received before this time has been through to the kill switch."""
        return self._reached_ms

    def wait_reached(self, at_ms: int, timeout_seconds: float) -> bool:
        """Block until `reached_ms` is `at_ms`, the time is out, or the pipeline has ended; return whether it was."""
        with self._reached:
            self._reached.wait_for(lambda: self._reached_ms >= at_ms or self.failure is not None, timeout_seconds)
        return self._reached_ms >= at_ms

    def sight(self) -> Sight:
        """Return whether Cordon sees: the stages run, and in the live lane the newest tick counted is not too old."""
        at_ms, why = self._clock.now_ms(), []
        age_ms = at_ms - self._grouping.watermark_ms
        if self.failure is not None:
            detail = f"the pipeline has failed: {self.failure}. See the log, and start Cordon again"
            why.append(Unseen(share="pipeline", cause=Cause.FAILED, detail=detail))
        elif self._blind_seconds is not None and age_ms > self._blind_seconds * 1000:
            detail = (
                f"the newest tick counted is {age_ms / 1000:.0f} s old: do the stages keep up, and is the log full?"
            )
            why.append(Unseen(share="pipeline", cause=Cause.OLD, detail=detail))
        return Sight(seeing=not why, why=why, unseen=len(why), at_ms=at_ms)

    def wait_counted(self, at_ms: int, timeout_seconds: float) -> bool:
        """Block until grouping's watermark is `at_ms`, though its word may not have been through detection yet."""
        deadline = time.monotonic() + timeout_seconds
        while self._grouping.watermark_ms < at_ms and self.failure is None and time.monotonic() < deadline:
            time.sleep(COUNTED_POLL_SECONDS)
        return self._grouping.watermark_ms >= at_ms

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._turn()
            for owner in self._owners.values():
                owner.stop()
        except BaseException as error:
            logger.exception("a stage failed and the pipeline has ended; nothing acknowledged is lost")
            with self._reached:
                self.failure = error
                self._reached.notify_all()
            self._on_failure(error)

    def _turn(self) -> None:
        try:
            watermark_ms = self._grouping.watermark_ms
            moved = [self._step(name, owner) for name, owner in self._owners.items()]
            if any(moved):
                self._watch_backlog()
                return
        except LogUnavailableError as error:
            logger.warning("the log can't be used now, trying again: %s", error)
            self._stop.wait(UNAVAILABLE_SECONDS)
            return
        # Nothing was left to read in any stage: all that the watermark covers has been through.
        self._note_reached(watermark_ms)
        self._watch_backlog()
        self._watch_blindness()
        self._log.wait(self._positions(), WAIT_SECONDS)

    def _step(self, name: str, owner: Owner) -> bool:
        started = time.perf_counter()
        moved = owner.step(0.0)
        if moved:
            self._metrics.observe("stage_step_seconds", time.perf_counter() - started, stage=name)
        return moved

    def _positions(self) -> dict[TopicPartition, int]:
        wanted = set(self._grouping.wants())
        positions = {s: o for s, o in self._grouping_owner.positions.items() if s in wanted}
        for name, owner in self._owners.items():
            if name != "grouping":
                positions.update(owner.positions)
        return positions

    def _note_reached(self, watermark_ms: int) -> None:
        if watermark_ms > self._reached_ms:
            with self._reached:
                self._reached_ms = watermark_ms
                self._reached.notify_all()

    def _watch_backlog(self) -> None:
        now = time.monotonic()
        if now - self._backlog_at < BACKLOG_EVERY_SECONDS:
            return
        self._backlog_at = now
        for name, owner in self._owners.items():
            self._metrics.set("backlog_records", sum(owner.backlog().values()), stage=name)

    def _watch_blindness(self) -> None:
        if self._blind_seconds is None:
            return
        watermark_ms, now = self._grouping.watermark_ms, time.monotonic()
        if watermark_ms != self._moved_to_ms:
            self._moved_to_ms, self._moved_at = watermark_ms, now
        elif now - self._moved_at > self._blind_seconds:
            self._moved_at = now
            self._detection.blind(self._clock.now_ms())
