"""What is sent next, over which route, and when: queues, pauses and breakers, with no thread and no clock of its own.

Between the outbox's records and the channels: `learn` takes a case, `next_jobs` gives what may be sent now, `done`
takes the channel's answer and gives the `PageAttempt` that is written to the log. Invariants: one job at a time over a
route, so what is told of an incident is told in order; whatever is in a case is tried until it is answered for good;
what was answered for good is not tried again while the log has not caught up; and a route that is stuck holds up nobody
else.
"""

import heapq
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from signals.pagers.breaker import Breaker
from signals.pagers.channels.interface import Answer
from signals.pagers.content import headline
from signals.pagers.records import TEXT_MAX, Delivery, Incident, PageAttempt, PageCase, Task, dedup_key
from signals.pagers.words import Answered, Step

BACKOFF_SECONDS: Final = 1.0
BACKOFF_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt to be made."""

    rollout: str
    owner: str
    route: str
    task: Task

    @property
    def key(self) -> str:
        """The dedup key."""
        return dedup_key(self.rollout, self.owner, self.task)


_Line = tuple[str, str, str]


@dataclass(slots=True)
class _Waiting:
    """What waits over one route of one incident."""

    tasks: Sequence[Task]
    done: int = 0
    tries: int = 0
    tried: int = 0
    not_before_ms: int = 0


@dataclass(slots=True)
class _RouteState:
    breaker: Breaker
    lines: dict[_Line, _Waiting] = field(default_factory=dict)
    busy: Job | None = None


class Dispatcher:
    """The queues of one partition; called from one thread."""

    def __init__(self, per_minute: Callable[[str], int], chance: random.Random) -> None:
        """Take how many sends a minute a route may make, and what spreads retries."""
        self._per_minute, self._chance = per_minute, chance
        self._routes: dict[str, _RouteState] = {}
        self._known: dict[str, set[_Line]] = {}

    def learn(self, case: PageCase) -> None:
        """Take what is to be told of a rollout now; it replaces what was known of it."""
        found: set[_Line] = set()
        for incident, delivery in _deliveries(case):
            if not delivery.tasks:
                continue
            line = (case.rollout, incident.owner, delivery.route)
            found.add(line)
            self._hold(line, delivery.tasks)
        for line in self._known.pop(case.rollout, set()) - found:
            self._routes[line[2]].lines.pop(line, None)
        if found:
            self._known[case.rollout] = found

    def forget(self, rollout: str) -> None:
        """Drop what waits for a rollout that is no more."""
        for line in self._known.pop(rollout, set()):
            self._routes[line[2]].lines.pop(line, None)

    def _hold(self, line: _Line, tasks: Sequence[Task]) -> None:
        state = self._route(line[2])
        waiting = state.lines.setdefault(line, _Waiting(tasks))
        waiting.tasks = [task for task in tasks if task.sequence > waiting.done]

    def _route(self, name: str) -> _RouteState:
        state = self._routes.get(name)
        if state is None:
            state = self._routes[name] = _RouteState(Breaker(self._per_minute(name)))
        return state

    def next_jobs(self, now_ms: int) -> list[Job]:
        """Return what may be sent now, at most one a route, and count it as under way."""
        jobs = []
        for name, state in self._routes.items():
            if state.busy is not None or not state.lines or state.breaker.ready_ms(now_ms) > now_ms:
                continue
            line = self._most_urgent(state.lines, now_ms)
            if line is None:
                continue
            job = state.busy = Job(line[0], line[1], name, state.lines[line].tasks[0])
            state.breaker.spend(now_ms)
            jobs.append(job)
        return jobs

    def _most_urgent(self, lines: Mapping[_Line, _Waiting], now_ms: int) -> _Line | None:
        ready = [
            (-waiting.tasks[0].level.rank, waiting.tasks[0].step is not Step.TRIGGER, waiting.tasks[0].since_ms, line)
            for line, waiting in lines.items()
            if waiting.tasks and waiting.not_before_ms <= now_ms
        ]
        return heapq.nsmallest(1, ready)[0][3] if ready else None

    def due_ms(self, now_ms: int) -> int | None:
        """Return when `next_jobs` will have something, nothing learnt or done before; None: not by itself."""
        times = [
            max(state.breaker.ready_ms(now_ms), waiting.not_before_ms)
            for state in self._routes.values()
            if state.busy is None
            for waiting in state.lines.values()
            if waiting.tasks
        ]
        return min(times, default=None)

    def done(self, job: Job, channel: str, answer: Answer, now_ms: int, seconds: float) -> PageAttempt:
        """Take the answer to a job, plan the next try if there must be one, and return what is written of it."""
        state = self._route(job.route)
        state.busy = None
        line = (job.rollout, job.owner, job.route)
        waiting = state.lines.get(line)
        tries = 1
        if waiting is not None:
            tries = waiting.tries = waiting.tries + 1 if waiting.tried == job.task.sequence else 1
            waiting.tried = job.task.sequence
        if answer.answered is Answered.RETRY:
            state.breaker.failed(now_ms, answer.retry_after_seconds)
            if waiting is not None:
                waiting.not_before_ms = now_ms + int(self._backoff(tries) * 1000)
        else:
            state.breaker.succeeded()
            if waiting is not None:
                waiting.done = max(waiting.done, job.task.sequence)
                waiting.tasks = [task for task in waiting.tasks if task.sequence > waiting.done]
                waiting.tries, waiting.not_before_ms = 0, 0
        return PageAttempt(
            rollout=job.rollout,
            owner=job.owner,
            route=job.route,
            channel=channel,
            key=job.key,
            step=job.task.step,
            level=job.task.level,
            sequence=job.task.sequence,
            episode=job.task.episode,
            attempt=tries,
            at_ms=now_ms,
            seconds=seconds,
            answered=answer.answered,
            status=answer.status,
            answer=answer.detail[:TEXT_MAX],
            headline=headline(job.task.page, job.task.step),
        )

    def _backoff(self, tries: int) -> float:
        pause = min(BACKOFF_SECONDS * 2.0 ** min(tries - 1, 10), BACKOFF_SECONDS_MAX)
        return pause * (0.5 + self._chance.random() / 2)

    def refresh(self) -> None:
        """Take the registry's rates anew and try everything at once: what kept a route from working may be mended."""
        for name, state in self._routes.items():
            state.breaker = Breaker(self._per_minute(name))
            for waiting in state.lines.values():
                waiting.not_before_ms = 0

    def waiting(self) -> int:
        """Return how many things wait or are under way."""
        return sum(len(waiting.tasks) for state in self._routes.values() for waiting in state.lines.values())

    def open_breakers(self) -> int:
        """Return how many routes are tried only once a pause."""
        return sum(state.breaker.open for state in self._routes.values())


def _deliveries(case: PageCase) -> Iterable[tuple[Incident, Delivery]]:
    return ((incident, delivery) for incident in case.incidents for delivery in incident.deliveries)
