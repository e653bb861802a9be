"""A feed: what is pushed is read from memory, everything else from the log behind, each record once and in order."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.clock import DrivenClock
from ingest.log.feed import Feed
from ingest.log.interface import Entry, LogUnavailableError, Record, TopicPartition
from ingest.log.memory import MemoryLog
from ingest.log.specs import TopicSpec

IN = TopicPartition("in", 0)
OTHER = TopicPartition("other", 0)
SPECS = (TopicSpec("in", 1), TopicSpec("other", 1))


def log_of(count: int) -> MemoryLog:
    log = MemoryLog(SPECS, DrivenClock(1000))
    log.append([Entry("in", 0, None, b"%d" % number) for number in range(count)])
    return log


def records(start: int, end: int) -> list[Record]:
    return [Record(number, None, b"%d" % number, 1000) for number in range(start, end)]


def read_to(feed: Feed, end: int, max_records: int) -> list[int]:
    """Read as an Owner does until `end`, and return the offsets got."""
    got: list[int] = []
    position = 0
    while position < end:
        found = feed.read(IN, position, max_records)
        assert found, f"nothing at {position} though the log goes on to {end}"
        got += [record.offset for record in found]
        position = got[-1] + 1
    return got


@given(
    pushes=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12),
    max_records=st.integers(1, 9),
    data=st.data(),
)
def test_whatever_is_pushed_each_record_is_read_once_and_in_order(
    pushes: list[tuple[int, int]], max_records: int, data: st.DataObject
) -> None:
    feed = Feed(log_of(40), [IN])
    got: list[int] = []
    position = 0
    for start, end in pushes:
        feed.push(IN, records(min(start, end), max(start, end)))
        for _ in range(data.draw(st.integers(0, 3))):
            found = feed.read(IN, position, max_records)
            got += [record.offset for record in found]
            position = got[-1] + 1 if got else 0
    while position < 40:
        found = feed.read(IN, position, max_records)
        got += [record.offset for record in found]
        position = got[-1] + 1
    assert got == list(range(40))


def test_pushed_records_that_continue_the_position_are_not_asked_of_the_log() -> None:
    log = log_of(5)
    feed = Feed(log, [IN])
    feed.push(IN, records(0, 5))
    log.unavailable = True
    assert [record.offset for record in feed.read(IN, 0)] == [0, 1, 2, 3, 4]


def test_a_hole_that_the_consumer_passed_itself_is_no_reason_to_ask_the_log() -> None:
    log = log_of(0)
    feed = Feed(log, [IN])
    feed.push(IN, records(7, 9), since=3)
    log.unavailable = True
    assert [record.offset for record in feed.read(IN, 3)] == [7, 8]


def test_a_hole_between_pushes_is_read_from_the_log() -> None:
    feed = Feed(log_of(10), [IN])
    feed.push(IN, records(0, 3))
    feed.push(IN, records(6, 10))
    assert read_to(feed, 10, 4) == list(range(10))


def test_pushing_beyond_the_bound_is_told_and_reading_makes_room() -> None:
    feed = Feed(log_of(0), [IN], bytes_max=10)
    assert feed.push(IN, [Record(0, None, b"x" * 9, 1)])
    assert not feed.push(IN, [Record(1, None, b"x" * 9, 1)])
    assert feed.held_bytes(IN) == 18
    feed.read(IN, 2)
    assert feed.held_bytes(IN) == 0
    assert feed.push(IN, [])


def test_wait_wakes_on_a_push_on_other_partitions_and_on_what_lay_there_before() -> None:
    log = log_of(4)
    feed = Feed(log, [IN])
    assert not feed.wait({IN: 0, OTHER: 0}, 0.01), "nothing was pushed, and nobody asked to catch up"
    feed.catch_up()
    assert feed.wait({IN: 0}, 0)
    assert not feed.wait({IN: 4}, 0.01)
    log.append([Entry("other", 0, None, b"x")])
    assert feed.wait({IN: 4, OTHER: 0}, 0.01)
    threading.Timer(0.05, lambda: feed.push(IN, records(4, 5))).start()
    begun = time.monotonic()
    assert feed.wait({IN: 4}, 5)
    assert time.monotonic() - begun < 2


def test_a_closed_feed_refuses_to_read_and_leaves_the_log_open() -> None:
    log = log_of(1)
    feed = Feed(log, [IN])
    feed.close()
    with pytest.raises(LogUnavailableError):
        feed.read(IN, 0)
    assert log.bounds(IN) == (0, 1)


def test_has_knows_what_was_pushed_and_what_lay_there_and_lets_go_of_what_was_read() -> None:
    feed = Feed(log_of(3), [IN])
    assert not feed.has(IN, 0)
    feed.catch_up()
    assert feed.has(IN, 2)
    assert not feed.has(IN, 3)
    feed.push(IN, records(2, 5))
    assert feed.has(IN, 4)
    assert not feed.has(IN, 5)
    assert feed.held_bytes(IN) == 0
    feed.close()
    with pytest.raises(LogUnavailableError):
        feed.has(IN, 0)


def test_waiting_is_what_lies_between_a_position_and_the_furthest_end_heard_of() -> None:
    feed = Feed(log_of(3), [IN])
    assert feed.waiting({IN: 0}) == 0
    feed.catch_up()
    assert feed.waiting({IN: 1}) == 2
    feed.push(IN, records(3, 6))
    assert feed.waiting({IN: 1}) == 5
    feed.note_end(IN, 9)
    feed.note_end(IN, 8)
    assert feed.waiting({IN: 1}) == 8
    assert feed.waiting({IN: 20, OTHER: 0}) == 0


def test_wake_ends_the_wait_under_way_or_the_next_one_and_no_more() -> None:
    feed = Feed(log_of(0), [IN])
    threading.Timer(0.05, feed.wake).start()
    begun = time.monotonic()
    assert not feed.wait({IN: 0}, 5)
    assert time.monotonic() - begun < 2
    feed.wake()
    begun = time.monotonic()
    assert not feed.wait({IN: 0}, 5)
    assert time.monotonic() - begun < 2
    assert not feed.wait({IN: 0}, 0.05)
    assert time.monotonic() - begun >= 0.05


def test_what_is_forgotten_is_read_from_the_log() -> None:
    log = log_of(5)
    feed = Feed(log, [IN])
    feed.push(IN, records(0, 5))
    feed.forget()
    assert feed.held_bytes(IN) == 0
    assert not feed.wait({IN: 0}, 0.01)
    assert len(feed.read(IN, 0)) == 5


def test_commits_of_fed_partitions_are_the_consumers_to_make() -> None:
    log = log_of(5)
    feed = Feed(log, [IN])
    feed.commit("group", {IN: 3, OTHER: 0})
    feed.commit("group", {IN: 4})
    assert feed.to_commit == {IN: 4}
    assert log.committed("group", IN) is None
    assert log.committed("group", OTHER) == 0


def test_a_closed_feed_claims_and_writes_nothing_more() -> None:
    log = log_of(1)
    feed = Feed(log, [IN])
    fence = feed.claim("share/0")
    feed.close()
    for refused in (
        lambda: feed.claim("share/0"),
        lambda: feed.append([Entry("in", 0, None, b"x")]),
        lambda: feed.check(fence),
        lambda: feed.bounds(IN),
        lambda: feed.read(OTHER, 0),
    ):
        with pytest.raises(LogUnavailableError):
            refused()
    log.check(fence)
    assert log.bounds(IN) == (0, 1)
