"""The running side of paging: one thread drives the outbox's Owner and hands out sends; others send.

One service for each keyed partition that a process owns. What is read, decided and written happens in its own thread,
never in that of the kill switch: a pager that fails must not keep a kill from being signed. Invariants: nothing is sent
before the log has what is to be sent; every answer is appended to `pagings`; if the thread fails, it starts again from
the log, and says so in `pagers_up` until then.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ingest.clock import Clock
from ingest.events import encoder
from ingest.log.interface import Entry, FencedError, Log, LogUnavailableError, TopicPartition
from ingest.log.owner import Owner
from ingest.metrics import Metrics
from ingest.topics import Topics
from signals.killswitch.signing import PublicKeys
from signals.pagers.channels.factory import ChannelError, channel_of, per_minute
from signals.pagers.channels.interface import Answer, Channel, Message
from signals.pagers.content import body, headline, links
from signals.pagers.dispatch import Dispatcher, Job
from signals.pagers.outbox import Outbox, OutboxSettings
from signals.pagers.records import PageAttempt
from signals.pagers.registry import ROUTES_MAX, Route
from signals.pagers.registry_book import RegistryBook
from signals.pagers.words import Answered

WAIT_SECONDS: Final = 0.25
BUSY_SECONDS: Final = 0.02
RELOAD_SECONDS: Final = 1.0
RESTART_SECONDS: Final = 5.0

_LOGGER = logging.getLogger(__name__)
MakeChannel = Callable[[str, Route, Path], Channel]


@dataclass(frozen=True, slots=True)
class PagerParts:
    """What the services of a process share.

    Attributes:
        log: where everything lies.
        topics: of the lane.
        trusted: the keys that kill-switch events must be signed with.
        book: the registry in force.
        clock: the wall clock.
        metrics: of the process.
        settings: how things are told.
        links_base: address that links in pages begin with; empty for none.
        make_channel: from a route to its channel.
    """

    log: Log
    topics: Topics
    trusted: PublicKeys
    book: RegistryBook
    clock: Clock
    metrics: Metrics
    settings: OutboxSettings
    links_base: str = ""
    make_channel: MakeChannel = channel_of


def message_of(job: Job, links_base: str) -> Message:
    """Return what a channel is given for a job."""
    task = job.task
    return Message(
        key=job.key,
        sequence=task.sequence,
        step=task.step,
        level=task.level,
        page=task.page,
        headline=headline(task.page, task.step),
        lines=body(task.page, task.step),
        links=links(task.page, links_base),
        opened_ms=task.since_ms,
    )


class PagerService:
    """Paging for one keyed partition, from `start` to `stop`."""

    def __init__(self, parts: PagerParts, partition: int, *, restart_seconds: float = RESTART_SECONDS) -> None:
        """Prepare; nothing is read before `start`."""
        self._parts, self._partition = parts, partition
        self._restart_seconds = restart_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pagers-{partition}", daemon=True)
        self._pagings = TopicPartition(parts.topics.name("pagings"), partition)
        self.fenced = False

    @property
    def ended(self) -> bool:
        """Whether it was started and runs no more."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Ask it to end; `stop` waits for that."""
        self._stop.set()

    def stop(self) -> None:
        """End after what is under way; what waits is sent after the next start."""
        self.ask_to_stop()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        label = str(self._partition)
        while not self._stop.is_set():
            try:
                with _Run(self._parts, self._partition) as run:
                    run.start(self._stop)
                    self._parts.metrics.set("pagers_up", 1, partition=label)
                    while not self._stop.is_set():
                        run.turn(self._stop)
            except FencedError:
                _LOGGER.info("paging of partition %d is another process's now", self._partition)
                self.fenced = True
                return
            except LogUnavailableError as error:
                _LOGGER.warning("the log can't be used now, paging tries again: %s", error)
                self._stop.wait(self._restart_seconds)
            except Exception:
                self._parts.metrics.set("pagers_up", 0, partition=label)
                _LOGGER.exception("paging of partition %d failed and starts again from the log", self._partition)
                self._stop.wait(self._restart_seconds)
        self._parts.metrics.set("pagers_up", 0, partition=label)


class _Run:
    """One life between two starts: owner, dispatcher, channels and senders."""

    def __init__(self, parts: PagerParts, partition: int) -> None:
        self._parts, self._partition = parts, partition
        topics = parts.topics
        self._stage = Outbox(
            parts.log, topics, partition, parts.trusted, lambda: parts.book.current, parts.clock, parts.metrics,
            parts.settings,
        )  # fmt: skip
        state = TopicPartition(topics.name("pages"), partition)
        self._owner = Owner(parts.log, f"pagers/{partition}", "pagers", self._stage, state, parts.clock)
        # What spreads retries need not be repeatable here; the simulation gives its own.
        self._dispatcher = Dispatcher(self._rate, random.Random())
        self._channels: dict[str, Channel] = {}
        self._version = parts.book.version
        self._looked_at = time.monotonic()
        self._senders = ThreadPoolExecutor(ROUTES_MAX, thread_name_prefix=f"pagers-{partition}-send")
        self._answers: queue.SimpleQueue[tuple[Job, str, Answer, float]] = queue.SimpleQueue()
        self._under_way = 0
        self._said: list[PageAttempt] = []

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_: object) -> None:
        self._senders.shutdown(cancel_futures=True)
        try:
            self._take_answers()
            self._owner.stop()
        except LogUnavailableError as error:
            _LOGGER.warning("the last answers of channels were not written, so they are asked again: %s", error)
        for channel in self._channels.values():
            channel.close()

    def start(self, stop: threading.Event) -> None:
        while True:
            try:
                self._owner.start()
                return
            except LogUnavailableError:
                if stop.wait(1.0):
                    raise

    def turn(self, stop: threading.Event) -> None:
        """Read, decide, write, and hand out what may be sent."""
        try:
            self._take_answers()
            self._owner.step(BUSY_SECONDS if self._under_way else self._pause())
        except LogUnavailableError as error:
            _LOGGER.warning("the log can't be used now, paging tries again: %s", error)
            stop.wait(0.5)
            return
        for rollout, case in self._stage.take_changed():
            if case is None:
                self._dispatcher.forget(rollout)
            else:
                self._dispatcher.learn(case)
        self._reload()
        for job in self._dispatcher.next_jobs(self._parts.clock.now_ms()):
            self._hand_out(job)
        label = str(self._partition)
        self._parts.metrics.set("pager_waiting", self._dispatcher.waiting(), partition=label)
        self._parts.metrics.set("pager_breakers_open", self._dispatcher.open_breakers(), partition=label)

    def _pause(self) -> float:
        now_ms = self._parts.clock.now_ms()
        due_ms = self._dispatcher.due_ms(now_ms)
        return WAIT_SECONDS if due_ms is None else min(WAIT_SECONDS, max(0.0, (due_ms - now_ms) / 1000))

    def _rate(self, name: str) -> int:
        route = self._parts.book.current.routes.get(name)
        return 600 if route is None else per_minute(route)

    def _reload(self) -> None:
        if time.monotonic() - self._looked_at < RELOAD_SECONDS:
            return
        self._looked_at = time.monotonic()
        self._parts.book.reload_if_changed()
        if self._version == self._parts.book.version or self._under_way:
            return
        self._version = self._parts.book.version
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self._dispatcher.refresh()

    def _hand_out(self, job: Job) -> None:
        self._under_way += 1
        try:
            channel = self._channel(job.route)
        except ChannelError as error:
            self._answers.put((job, "", Answer(Answered.REFUSED, 0, str(error)), 0.0))
            return
        message = message_of(job, self._parts.links_base)
        self._senders.submit(self._send, job, channel, message)

    def _channel(self, name: str) -> Channel:
        channel = self._channels.get(name)
        if channel is None:
            route = self._parts.book.current.routes.get(name)
            if route is None:
                raise ChannelError(f"route {name} is no more in the registry")
            channel = self._channels[name] = self._parts.make_channel(name, route, self._parts.book.path.parent)
        return channel

    def _send(self, job: Job, channel: Channel, message: Message) -> None:
        started = time.monotonic()
        try:
            answer = channel.send(message)
        except Exception as error:
            _LOGGER.exception("the channel of route %s failed", job.route)
            answer = Answer(Answered.RETRY, 0, f"{type(error).__name__}: {error}")
        self._answers.put((job, channel.kind.value, answer, time.monotonic() - started))

    def _take_answers(self) -> None:
        """Write what channels said; what the log does not take now is kept for the next turn."""
        while not self._answers.empty():
            job, kind, answer, seconds = self._answers.get()
            self._under_way -= 1
            self._said.append(self._dispatcher.done(job, kind, answer, self._parts.clock.now_ms(), seconds))
            self._parts.metrics.count("pager_sends_total", channel=kind or "none", answered=answer.answered.value)
            self._parts.metrics.observe("pager_send_seconds", seconds)
        if self._said:
            pagings = TopicPartition(self._parts.topics.name("pagings"), self._partition)
            self._parts.log.append([Entry(*pagings, one.rollout.encode(), encoder.encode(one)) for one in self._said])
            self._said = []
