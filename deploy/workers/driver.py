"""Runs one Owner in a thread of its own: what a share of the work is, on many machines.

A group consumer (aiokafka's for grouping, Faust's agents for the rest) hands records to the share's Feed and drives
nothing: this thread starts the Owner, steps it, keeps what an absent Kafka would not take, and says how far it came.

Invariants: the Owner and its stage are touched by this thread only; a share that ends says so once, through `on_end`,
whatever ended it; a parked share writes nothing, and goes on only if nobody has claimed its fence meanwhile.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ingest.clock import Clock
from ingest.log.feed import Feed
from ingest.log.interface import FencedError, LogError, LogUnavailableError, TopicPartition
from ingest.log.owner import Owner
from ingest.metrics import Metrics
from ingest.progress import OwnerWord, place_name

# An idle share wakes this often; a pushed record, `park` and `stop` wake it at once.
WAIT_SECONDS = 0.5
UNAVAILABLE_SECONDS = 0.5
# An idle share asks the log itself this often whether its consumer has missed something.
BACKLOG_EVERY_SECONDS = 5.0
STOP_SECONDS = 10.0
PARK_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Words(Protocol):
    """Where shares say how far they have come; `deploy.workers.words.ProgressWriter`."""

    def add(self, share: "ShareDriver") -> None:
        """Ask this share for a word from now on."""
        ...

    def remove(self, share: "ShareDriver", *, leaving: bool) -> None:
        """Ask it no more; `leaving`: it ended in order, and a last word says so."""
        ...

    def nudge(self, share: "ShareDriver") -> None:
        """Take a word of this share now rather than in its turn."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """What a watchdog asks of anything that may stand still.

    Attributes:
        name: what it is, for people: `grouping/3`, `event loop`.
        stage: the metric label it is counted under.
        progress: differs from what it was before, if it got on since, or had nobody to get on with (Kafka is away).
        waiting: there is something to get on with: unread records, a state to load.
    """

    name: str
    stage: str
    progress: int
    waiting: bool


@dataclass(frozen=True, slots=True)
class _Told:
    """How far the share has come, of one moment."""

    positions: Mapping[TopicPartition, int] = field(default_factory=dict)
    said: Mapping[TopicPartition, int] = field(default_factory=dict)
    reached_ms: int = 0
    newest_ms: int = 0


class ShareDriver:
    """Drives one Owner; every method may be called from any thread, but `on_turn` and `on_end` are called in its own.

    Attributes:
        name: the share's name, that of its fence.
        stage_word: its stage's, the label of metrics.
    """

    def __init__(
        self,
        name: str,
        feed: Feed,
        owner: Owner,
        words: Words | None,
        clock: Clock,
        metrics: Metrics,
        *,
        stage_word: str,
        reached: Callable[[], int],
        on_turn: Callable[[bool], None] | None = None,
        on_end: Callable[["ShareDriver", BaseException | None], None],
        on_started: Callable[[], None] | None = None,
        eager_words: bool = False,
        catch_up: bool = True,
    ) -> None:
        """Take what is driven; nothing runs before `start`.

        Args:
            name: the share's name.
            feed: what `owner` reads.
            owner: not started.
            words: asked to say how far this share has come; None: nobody listens.
            clock: stamps words.
            metrics: gets the time of steps and of loading.
            stage_word: label of those metrics.
            reached: everything received before this time has been through the stage; asked after a turn that did not
                fail, when all the stage had to say is appended.
            on_turn: called after each such turn, told whether it moved. What it has the stage say is appended by the
                next turn.
            on_end: called once, last of all. The error is None after `stop`; FencedError: another owner lives, which
                is no failure; anything else is one. It must not `stop` this driver: it would wait for itself.
            on_started: called when the owner has claimed and loaded, before its first step: a stage that writes its
                generation learns it here from `owner.fence.epoch`.
            eager_words: a word after each turn that moved (driven lanes), rather than one about every second.
            catch_up: read all the log holds at the start, pushed or not. False only where the consumer is sought to
                the positions that `wait_started` returns, and so pushes everything.
        """
        self.name = name
        self.stage_word = stage_word
        self._feed, self._owner, self._words = feed, owner, words
        self._clock, self._metrics = clock, metrics
        self._reached, self._on_turn, self._on_end, self._on_started = reached, on_turn, on_end, on_started
        self._eager_words, self._catch_up = eager_words, catch_up
        self._state = threading.Condition()
        self._stopping = self._flush = False
        # A share that is asked to park and resumed before it came to rest rests for a moment all the same.
        self._park = self._rest_due = False
        self._resting = self._ready = self._ended = False
        self._failure: BaseException | None = None
        self._told = _Told()
        self._tries = 0
        self._missed = 0
        self._asked_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"share {name}", daemon=True)

    def start(self) -> None:
        """Begin the thread: claim, load, catch up, then step until stopped."""
        self._thread.start()

    def wait_started(self, timeout_seconds: float) -> Mapping[TopicPartition, int]:
        """Return the positions to seek to, once the share is ready after `start` or `resume`.

        Raises:
            TimeoutError: it was not in time; it goes on trying.
            Exception: what ended it: for instance GapError, StateError, or FencedError after `resume`.
        """
        with self._state:
            if not self._state.wait_for(lambda: self._ready or self._ended, timeout_seconds):
                raise TimeoutError(f"{self.name} was not ready within {timeout_seconds:g} s")
            if self._failure is not None:
                raise self._failure
            if not self._ready:
                raise LogError(f"{self.name} was stopped before it was ready")
            return self._owner.positions

    @property
    def flushed(self) -> Mapping[TopicPartition, int]:
        """The offset before which everything of each input is applied and what came of it appended."""
        return self._owner.flushed

    @property
    def generation(self) -> int:
        """The fence's epoch; 0 before it is claimed."""
        return self._owner.fence.epoch if self._ready else 0

    @property
    def ready(self) -> bool:
        """Whether it can be fed: loaded, and neither parked nor ended."""
        return self._ready

    @property
    def loaded(self) -> bool:
        """Whether it has claimed its fence and loaded its state."""
        return bool(self._told.positions)

    @property
    def parked(self) -> bool:
        """Whether it rests: it keeps its state and writes nothing."""
        return self._resting

    @property
    def ended(self) -> bool:
        """Whether its thread is through."""
        return self._ended

    @property
    def lag_records(self) -> int:
        """Offsets between what is applied and the inputs' ends, as far as was heard."""
        return self._feed.waiting(self._told.positions) if self._told.positions else 0

    @property
    def unfed(self) -> bool:
        """Whether the log held records, at the last look, that its consumer had not pushed."""
        return self._missed > 0 and not self._resting and not self._ended

    @property
    def standing(self) -> Standing:
        """What the watchdog asks: a share waits while it loads, or has unread records; a parked one never does."""
        idle = self._resting or self._ended or (self._ready and not self.lag_records)
        return Standing(self.name, self.stage_word, self._owner.beats + self._tries, not idle)

    def word(self, worker: str, *, leaving: bool = False) -> OwnerWord | None:
        """Return how far this share has come, or None before it is ready, and while it is parked."""
        if not self._told.positions or (self._resting and not leaving):
            return None
        told = self._told
        return OwnerWord(
            owner=self.name,
            worker=worker,
            generation=self._owner.fence.epoch,
            at_ms=self._clock.now_ms(),
            reached_ms=told.reached_ms,
            positions={place_name(*source): offset for source, offset in told.positions.items()},
            said={place_name(*source): offset for source, offset in told.said.items()},
            lag_records=self.lag_records,
            newest_ms=told.newest_ms,
            leaving=leaving,
        )

    def park(self, timeout_seconds: float = PARK_SECONDS) -> bool:
        """Stop writing after what is applied is flushed, and keep the state; return whether it did in time.

        What was pushed is forgotten: seek to the positions when it is resumed.
        """
        self.ask_to_park()
        with self._state:
            return self._state.wait_for(lambda: self._resting or self._ended, timeout_seconds)

    def ask_to_park(self) -> None:
        """Begin to park without waiting: for several shares at once."""
        with self._state:
            self._park, self._rest_due, self._ready = True, True, False
        self._feed.wake()

    def resume(self) -> None:
        """Go on after `park`, if nobody has claimed the share meanwhile: `wait_started` says whether."""
        with self._state:
            self._park = False
            self._state.notify_all()

    def ask_to_stop(self, flush: bool = True) -> None:
        """Begin to end without waiting: for several shares at once."""
        with self._state:
            self._stopping, self._flush = True, flush
            self._state.notify_all()
        self._feed.wake()

    def stop(self, flush: bool = True, timeout_seconds: float = STOP_SECONDS) -> None:
        """End after what is applied is flushed, and wait for it, bounded.

        A thread that is not through in time is left behind (it is a daemon): its fence keeps the next owner exact.

        Args:
            flush: append what is due before ending; without it a restart applies it again, to the same effect.
            timeout_seconds: most time to wait.
        """
        self.ask_to_stop(flush)
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
            if self._thread.is_alive():
                logger.warning("%s did not end within %g s and was left behind", self.name, timeout_seconds)
        self._feed.close()

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            self._load()
            while not self._stopping:
                if self._rest_due:
                    self._rest()
                else:
                    self._turn()
            self._finish()
        except FencedError as error:
            logger.info("%s ends, another owner lives: %s", self.name, error)
            failure = error
        except BaseException as error:
            logger.exception("%s failed; nothing acknowledged is lost", self.name)
            failure = error
        if self._words is not None:
            self._words.remove(self, leaving=failure is None and not self._resting)
        with self._state:
            self._failure, self._ended, self._ready = failure, True, False
            self._state.notify_all()
        self._on_end(self, failure)

    def _load(self) -> None:
        began = time.perf_counter()
        if not self._until_available(self._owner.start):
            return
        self._metrics.observe("restore_seconds", time.perf_counter() - began, stage=self.stage_word)
        if self._on_started is not None:
            self._on_started()
        if self._words is not None:
            self._words.add(self)
        self._open()

    def _open(self) -> None:
        """Read on: say what the positions are, and let the consumer be sought to them."""
        if self._catch_up and not self._until_available(self._feed.catch_up):
            return
        self._tell()
        with self._state:
            self._ready = not self._rest_due
            self._state.notify_all()

    def _until_available(self, request: Callable[[], None]) -> bool:
        """Make a request of the log until it is heard; return False if this share was stopped before."""
        while not self._stopping:
            try:
                request()
            except LogUnavailableError as error:
                self._pause(error)
            else:
                return True
        return False

    def _pause(self, error: LogUnavailableError) -> None:
        # Counts as getting on: a Kafka that is away is no stall of ours, and a restart would only cost the state.
        self._tries += 1
        level = logging.WARNING if self._tries == 1 else logging.DEBUG
        logger.log(level, "%s: the log can't be used now, trying again: %s", self.name, error)
        with self._state:
            self._state.wait_for(lambda: self._stopping or self._rest_due, UNAVAILABLE_SECONDS)

    def _turn(self) -> None:
        began = time.perf_counter()
        try:
            moved = self._owner.step(WAIT_SECONDS)
            if not moved:
                self._look_behind()
        except LogUnavailableError as error:
            self._pause(error)
            return
        if moved:
            self._metrics.observe("stage_step_seconds", time.perf_counter() - began, stage=self.stage_word)
        before = self._told
        self._tell()
        if self._on_turn is not None:
            self._on_turn(moved)
        if self._eager_words and self._words is not None and (moved or before.reached_ms != self._told.reached_ms):
            self._words.nudge(self)

    def _look_behind(self) -> None:
        """Ask the log now and then what was not pushed: a consumer that stands still would never say so.

        What is found is read from the log by the next step: records, or the hole a transaction's marker leaves.
        """
        now = time.monotonic()
        if now - self._asked_at >= BACKLOG_EVERY_SECONDS:
            self._asked_at = now
            self._missed = sum(self._owner.backlog().values())
            if self._missed:
                self._feed.catch_up()

    def _tell(self) -> None:
        owner = self._owner
        self._told = _Told(owner.flushed, owner.said, self._reached(), owner.newest_ms)

    def _rest(self) -> None:
        self._feed.forget()
        with self._state:
            self._resting, self._rest_due = True, False
            self._state.notify_all()
            self._state.wait_for(lambda: self._stopping or not self._park)
            if self._stopping:
                # Left resting: the share is another's by now, or the process ends.
                self._flush = False
                return
        if self._until_available(lambda: self._feed.check(self._owner.fence)):
            self._resting = False
            self._open()

    def _finish(self) -> None:
        try:
            self._owner.stop(flush=self._flush)
            self._tell()
        except LogUnavailableError as error:
            logger.warning("%s ended before the log took its last word; a restart says it again: %s", self.name, error)
