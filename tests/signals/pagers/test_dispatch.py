"""The dispatcher and its breakers: order, pauses, rates, and what was answered is not asked again."""

import random

import pytest

from signals.pagers.breaker import OPEN_SECONDS_MAX, Breaker
from signals.pagers.channels.interface import Answer
from signals.pagers.dispatch import BACKOFF_SECONDS_MAX, Dispatcher
from signals.pagers.records import Delivery, Incident, PageCase, Task
from signals.pagers.words import Answered, Level, Role, Step
from support.pages import PAGE

TAKEN = Answer(Answered.DELIVERED, 202)
AWAY = Answer(Answered.RETRY, 503)


def task(sequence: int, level: Level = Level.HIGH, step: Step = Step.TRIGGER) -> Task:
    return Task(sequence=sequence, step=step, level=level, episode=1, since_ms=sequence, page=PAGE)


def case(rollout: str, *tasks: Task, route: str = "pager") -> PageCase:
    delivery = Delivery(route=route, tasks=list(tasks), sequence=9)
    return PageCase(rollout=rollout, incidents=[Incident(owner="acme", role=Role.OWNER, deliveries=[delivery])])


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher(lambda _: 6000, random.Random(1))


def test_one_job_at_a_time_over_a_route_in_order(dispatcher: Dispatcher) -> None:
    dispatcher.learn(case("r-1", task(1), task(2, step=Step.RESOLVE)))
    (job,) = dispatcher.next_jobs(0)
    assert job.task.sequence == 1
    assert dispatcher.next_jobs(0) == []
    dispatcher.done(job, "pagerduty", TAKEN, 10, 0.1)
    (job,) = dispatcher.next_jobs(10)
    assert job.task.sequence == 2


def test_what_was_answered_is_not_asked_again_while_the_log_lags(dispatcher: Dispatcher) -> None:
    dispatcher.learn(case("r-1", task(1)))
    (job,) = dispatcher.next_jobs(0)
    dispatcher.done(job, "pagerduty", TAKEN, 10, 0.1)
    dispatcher.learn(case("r-1", task(1)))
    assert dispatcher.next_jobs(1000) == []
    dispatcher.learn(case("r-1", task(1), task(2)))
    assert [one.task.sequence for one in dispatcher.next_jobs(1000)] == [2]


def test_the_loudest_goes_first_then_the_oldest(dispatcher: Dispatcher) -> None:
    dispatcher.learn(case("r-1", task(2)))
    dispatcher.learn(case("r-2", task(1)))
    dispatcher.learn(case("r-3", task(3, Level.CRITICAL)))
    order = []
    for now_ms in range(0, 30, 10):
        (job,) = dispatcher.next_jobs(now_ms)
        order.append(job.rollout)
        dispatcher.done(job, "pagerduty", TAKEN, now_ms, 0.1)
    assert order == ["r-3", "r-2", "r-1"]


def test_a_failure_waits_longer_each_time_and_not_beyond_the_bound(dispatcher: Dispatcher) -> None:
    dispatcher.learn(case("r-1", task(1)))
    now_ms, waits = 0, []
    for tries in range(1, 12):
        (job,) = dispatcher.next_jobs(now_ms)
        attempt = dispatcher.done(job, "pagerduty", AWAY, now_ms, 0.1)
        assert attempt.attempt == tries
        due_ms = dispatcher.due_ms(now_ms)
        assert due_ms is not None
        assert dispatcher.next_jobs(due_ms - 1) == []
        waits.append((due_ms - now_ms) / 1000)
        now_ms = due_ms
    assert 0.5 <= waits[0] <= 1
    assert max(waits) <= max(BACKOFF_SECONDS_MAX, OPEN_SECONDS_MAX)
    assert waits[-1] > 20
    assert dispatcher.open_breakers() == 1


def test_other_routes_go_on_and_what_is_gone_is_dropped(dispatcher: Dispatcher) -> None:
    dispatcher.learn(case("r-1", task(1)))
    dispatcher.learn(case("r-2", task(1), route="other"))
    assert {job.route for job in dispatcher.next_jobs(0)} == {"pager", "other"}
    dispatcher.forget("r-1")
    dispatcher.learn(case("r-2"))
    assert dispatcher.waiting() == 0
    assert dispatcher.due_ms(0) is None


def test_a_refresh_tries_everything_at_once(dispatcher: Dispatcher) -> None:
    dispatcher.learn(case("r-1", task(1)))
    (job,) = dispatcher.next_jobs(0)
    dispatcher.done(job, "pagerduty", Answer(Answered.RETRY, 429, "", 600.0), 0, 0.1)
    assert dispatcher.next_jobs(1000) == []
    dispatcher.refresh()
    assert len(dispatcher.next_jobs(1000)) == 1


def test_a_breaker_keeps_the_rate_and_what_the_channel_asks_for() -> None:
    breaker, now_ms, sent = Breaker(60), 0, []
    while now_ms < 120_000:
        if breaker.ready_ms(now_ms) <= now_ms:
            breaker.spend(now_ms)
            sent.append(now_ms)
        now_ms += 50
    assert 115 <= len(sent) <= 130
    assert sum(at < 60_000 for at in sent) <= 60 + 7
    breaker.failed(now_ms, 42.0)
    assert breaker.ready_ms(now_ms) == now_ms + 42_000
    breaker.succeeded()
    assert breaker.ready_ms(now_ms) <= now_ms + 1000
