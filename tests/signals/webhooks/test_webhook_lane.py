"""The queue of one webhook: order, isolation of what fails, dead letters, and a place that covers everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signals.delivery.webhooks.lane import (
    BACKOFF_MS_MAX,
    DEAD_MAX,
    IN_FLIGHT_MAX,
    TRIES_LEAST,
    WINDOW,
    Lane,
    Result,
    backoff_ms,
)
from signals.delivery.webhooks.words import AttemptWord, DeadDelivery, DeliveryPlace, Disabled, Redelivery
from support.switches import START_MS
from support.webhooks import DELIVERED, FAILED, GONE, REJECTED, TIMED_OUT, UNREACHABLE, event_of, subscription

A, B = "r-a", "r-b"
RETRY_MS = 600_000


def lane_with(*rollouts: str, **given_: object) -> Lane:
    lane = Lane(subscription(**given_), 0, RETRY_MS)  # type: ignore[arg-type]
    lane.take([event_of(offset, rollout) for offset, rollout in enumerate(rollouts)], 0, len(rollouts))
    return lane


def begun(lane: Lane, now_ms: int = START_MS) -> list[int]:
    """Return the offsets that go out now."""
    found = []
    while (event := lane.next(now_ms)) is not None:
        found.append(event.offset)
    return found


def test_one_event_of_a_rollout_is_under_way_and_other_rollouts_go_beside_it() -> None:
    lane = lane_with(A, A, B)
    assert begun(lane) == [0, 2]
    lane.settle(0, DELIVERED, START_MS, 0.5)
    assert begun(lane) == [1]


def test_an_event_that_fails_waits_by_itself() -> None:
    lane = lane_with(A, B, B)
    assert begun(lane) == [0, 1]
    lane.settle(0, FAILED, START_MS, 0.0)
    lane.settle(1, DELIVERED, START_MS, 0.0)
    assert begun(lane) == [2]
    lane.settle(2, DELIVERED, START_MS, 0.0)
    assert begun(lane) == []
    assert lane.wake_ms() == START_MS + 500
    assert begun(lane, START_MS + 500) == [0]


def test_where_nobody_answers_the_whole_queue_waits_and_then_tries_one_at_a_time() -> None:
    lane = lane_with(A, B, "r-c")
    assert begun(lane) == [0, 1, 2]
    for offset in (0, 1, 2):
        lane.settle(offset, UNREACHABLE, START_MS, 0.0)
    assert begun(lane) == []
    later = lane.wake_ms()
    assert later is not None
    assert later > START_MS
    assert begun(lane, later) == [0]
    lane.settle(0, DELIVERED, later, 0.0)
    assert begun(lane, later) == [1, 2]


def test_an_event_at_which_the_receiver_hangs_does_not_keep_the_others_from_their_turn() -> None:
    lane = lane_with(A, B)
    now = START_MS
    assert lane.next(now) is not None
    lane.settle(0, TIMED_OUT, now, 0.0)
    now = lane.wake_ms() or 0
    second = lane.next(now)
    assert second is not None
    assert second.offset == 1


def test_retry_after_is_obeyed_for_the_whole_queue() -> None:
    lane = lane_with(A, B, B)
    assert begun(lane) == [0, 1]
    lane.settle(0, Result(AttemptWord.BUSY, "429", 42_000), START_MS, 0.0)
    lane.settle(1, DELIVERED, START_MS, 0.0)
    assert begun(lane, START_MS + 41_999) == []
    assert lane.wake_ms() == START_MS + 42_000
    assert begun(lane, START_MS + 42_000) == [2, 0]


def test_a_rejected_event_is_a_dead_letter_after_five_tries_and_the_next_one_goes() -> None:
    lane = lane_with(A, A)
    now = START_MS
    for _ in range(TRIES_LEAST):
        assert begun(lane, now) == [0]
        lane.settle(0, REJECTED, now, 0.5)
        now += BACKOFF_MS_MAX
    assert begun(lane, now) == [1]
    letters = [change for change in lane.changes() if isinstance(change, DeadDelivery)]
    assert [(letter.offset, letter.word, letter.tries) for letter in letters] == [(0, "rejected", TRIES_LEAST)]


@pytest.mark.parametrize("result", [FAILED, TIMED_OUT, UNREACHABLE])
def test_a_failing_event_is_tried_until_its_time_is_over(result: Result) -> None:
    lane = lane_with(A)
    now, tries = START_MS, 0
    while lane.queued:
        now = max(now, lane.wake_ms() or now)
        assert begun(lane, now) == [0]
        tries += 1
        lane.settle(0, result, now, 0.5)
        assert lane.queued or now - START_MS >= RETRY_MS
    assert tries >= TRIES_LEAST
    assert now - START_MS < RETRY_MS + BACKOFF_MS_MAX


def test_410_disables_and_a_change_by_a_person_enables_with_nothing_lost() -> None:
    lane = lane_with(A, B)
    assert begun(lane) == [0, 1]
    lane.settle(0, GONE, START_MS, 0.0)
    lane.settle(1, DELIVERED, START_MS, 0.0)
    assert lane.disabled == "gone"
    assert begun(lane) == []
    lane.change(subscription(revision=2))
    assert lane.active
    assert begun(lane) == [0]


def test_too_many_dead_letters_disable_instead_of_forgetting_one() -> None:
    dead = {offset: _letter(offset) for offset in range(DEAD_MAX)}
    place = DeliveryPlace(subscription="wh-1", partition=0, position=DEAD_MAX)
    lane = Lane(subscription(), 0, RETRY_MS, place, dead)
    lane.take([event_of(DEAD_MAX, A)], DEAD_MAX, DEAD_MAX + 1)
    now = START_MS
    for _ in range(TRIES_LEAST):
        assert begun(lane, now) == [DEAD_MAX]
        lane.settle(DEAD_MAX, REJECTED, now, 0.5)
        now += BACKOFF_MS_MAX
    assert lane.disabled is Disabled.DEAD_LETTERS_FULL
    assert lane.waiting == [DEAD_MAX]


def _letter(offset: int) -> DeadDelivery:
    return DeadDelivery(
        subscription="wh-1",
        partition=0,
        offset=offset,
        event_id=f"{A}/{offset + 1}",
        word=AttemptWord.REJECTED,
        detail="400",
        tries=5,
        at_ms=START_MS,
    )


def test_redelivery_by_hand_takes_one_dead_letter_or_all_and_each_request_once() -> None:
    dead = {offset: _letter(offset) for offset in range(3)}
    place = DeliveryPlace(subscription="wh-1", partition=0, position=3)
    lane = Lane(subscription(), 0, RETRY_MS, place, dead)
    assert lane.wants_read(3) is None
    one = Redelivery(serial=1, event_id=f"{A}/2")
    lane.change(subscription(revision=2, redeliveries=[one]))
    assert lane.wants_read(3) == 1
    lane.take([event_of(1, A), event_of(2, A)], 1, 3)
    assert begun(lane) == [1]
    lane.settle(1, DELIVERED, START_MS, 0.0)
    assert [change for change in lane.changes() if isinstance(change, int)] == [1]
    lane.change(subscription(revision=3, redeliveries=[one, Redelivery(serial=2)]))
    assert lane.waiting == [0, 2]
    assert lane.place().redelivered == 2


def test_a_paused_subscription_misses_nothing_unless_it_is_told_to_begin_anew() -> None:
    lane = lane_with(A)
    lane.change(subscription(revision=2, enabled=False))
    assert (begun(lane), lane.wants_read(5)) == ([], None)
    lane.change(subscription(revision=3))
    assert begun(lane) == [0]
    lane.settle(0, DELIVERED, START_MS, 0.0)
    assert lane.wants_read(5) == 1
    lane.change(subscription(revision=4, starts=[5], start_revision=4))
    assert lane.wants_read(5) is None
    assert lane.position == 5


def test_the_window_bounds_what_is_held() -> None:
    lane = lane_with(*[A] * (WINDOW + 10))
    assert lane.queued == WINDOW
    assert lane.wants_read(WINDOW + 10) is None
    assert begun(lane) == [0]
    lane.settle(0, DELIVERED, START_MS, 0.0)
    assert lane.wants_read(WINDOW + 10) == WINDOW


def test_backoff_doubles_up_to_five_minutes_with_half_of_it_by_chance() -> None:
    assert [backoff_ms(tries, 0.0) for tries in (1, 2, 3, 30)] == [500, 1000, 2000, BACKOFF_MS_MAX // 2]
    assert backoff_ms(30, 0.999) <= BACKOFF_MS_MAX


RESULTS = st.sampled_from([DELIVERED, DELIVERED, DELIVERED, FAILED, REJECTED, TIMED_OUT, UNREACHABLE])


@given(
    rollouts=st.lists(st.sampled_from("abcd"), min_size=1, max_size=30),
    steps=st.lists(st.tuples(st.integers(0, 3), RESULTS, st.integers(0, 4000), st.booleans()), max_size=120),
)
def test_whatever_comes_of_the_posts_order_holds_and_a_restart_at_any_moment_skips_nothing(
    rollouts: list[str], steps: list[tuple[int, Result, int, bool]]
) -> None:
    events = [event_of(offset, rollout) for offset, rollout in enumerate(rollouts)]
    lane, now, out = Lane(subscription(), 0, RETRY_MS), START_MS, list[int]()
    settled: set[int] = set()

    def fill() -> None:
        while (offset := lane.wants_read(len(events))) is not None:
            lane.take(events[offset : offset + 5], offset, min(offset + 5, len(events)))

    for pick, result, step_ms, restart in steps:
        fill()
        now += step_ms
        while (event := lane.next(now)) is not None:
            # In order: everything before it of its rollout is settled.
            assert all(other.offset in settled for other in events[: event.offset] if other.rollout == event.rollout)
            out.append(event.offset)
        assert lane.in_flight == len(out) <= IN_FLIGHT_MAX
        if out:
            offset = out.pop(pick % len(out))
            lane.settle(offset, result, now, 0.3)
            if offset not in lane.waiting:
                settled.add(offset)
        unsettled = {event.offset for event in events} - settled
        assert unsettled == {*lane.waiting, *range(lane.position, len(events))}
        if restart:
            lane, out = Lane(subscription(), 0, RETRY_MS, lane.place(), lane.dead), []
    assert set(lane.dead) <= settled
