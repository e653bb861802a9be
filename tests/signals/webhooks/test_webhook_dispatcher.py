"""The dispatcher by itself: what it hands over stays until it is written, holes, removal, and lanes that are behind."""

from collections.abc import Sequence

import pytest

from ingest.events import encoder
from ingest.log.interface import Entry, Record, TopicPartition
from signals.delivery.webhooks.dispatcher import ENTRIES_MAX, RECENT_MAX, Dispatcher
from signals.delivery.webhooks.event import posted_event
from signals.delivery.webhooks.words import Subscription, place_decoder
from support.switches import START_MS
from support.webhooks import DELIVERED, FAILED, record_of, subscription

DELIVERIES = TopicPartition("cordon.deliveries.v1", 0)
RETRY_MS = 600_000


def subscribed(*subscriptions: Subscription) -> list[Record]:
    return [Record(number, one.id.encode(), encoder.encode(one), START_MS) for number, one in enumerate(subscriptions)]


def dispatcher_of(*subscriptions: Subscription, head: int = 0, restored: Sequence[Record] = ()) -> Dispatcher:
    made = Dispatcher(DELIVERIES, RETRY_MS, head, seed=1)
    made.restore(restored)
    made.take_subscriptions(subscribed(*subscriptions))
    made.tidy()
    return made


def written(dispatcher: Dispatcher) -> list[Entry]:
    """Return all that must be appended now, as if it were."""
    found: list[Entry] = []
    while entries := dispatcher.outputs():
        found += entries
        dispatcher.written()
    return found


def records_of(entries: Sequence[Entry]) -> list[Record]:
    latest = {entry.key: entry for entry in entries}
    return [Record(number, entry.key, entry.value, START_MS) for number, entry in enumerate(latest.values())]


def test_an_event_goes_to_everybody_and_its_settling_is_written() -> None:
    dispatcher = dispatcher_of(subscription("wh-1"), subscription("wh-2"))
    dispatcher.take_events([record_of(0)])
    posts, reads = dispatcher.actions(START_MS)
    assert ([post.subscription.id for post in posts], reads) == (["wh-1", "wh-2"], [])
    # One encoded copy, shared.
    assert posts[0].event is posts[1].event
    for post in posts:
        dispatcher.settle(post, DELIVERED, START_MS)
    places = [place_decoder.decode(entry.value or b"") for entry in written(dispatcher)]
    assert {(place.subscription, place.position, place.delivered) for place in places} == {
        ("wh-1", 1, 1),
        ("wh-2", 1, 1),
    }


def test_what_was_handed_over_is_handed_over_again_until_it_is_written_and_nothing_slips_in_between() -> None:
    dispatcher = dispatcher_of(subscription("wh-1"))
    first = list(dispatcher.outputs())
    dispatcher.take_events([record_of(0)])
    dispatcher.actions(START_MS)
    assert list(dispatcher.outputs()) == first
    dispatcher.written()
    later = written(dispatcher)
    assert place_decoder.decode(later[-1].value or b"").waiting == [0]


def test_one_append_is_bounded() -> None:
    dispatcher = dispatcher_of(*[subscription(f"wh-{number}") for number in range(ENTRIES_MAX * 2)])
    assert len(dispatcher.outputs()) == ENTRIES_MAX
    assert len(written(dispatcher)) == ENTRIES_MAX * 2


def test_a_removed_subscription_is_not_brought_back_by_what_was_to_be_written_of_it() -> None:
    dispatcher = dispatcher_of(subscription("wh-1"))
    handed = dispatcher.outputs()
    assert [entry.key for entry in handed] == [b"wh-1/0"]
    dispatcher.take_subscriptions([Record(1, b"wh-1", None, START_MS)])
    dispatcher.written()
    assert written(dispatcher) == [Entry(*DELIVERIES, b"wh-1/0", None)]
    assert list(dispatcher.lanes) == []


def test_places_of_subscriptions_that_are_no_more_are_taken_back_at_the_start() -> None:
    before = dispatcher_of(subscription("wh-1"), subscription("wh-2"))
    after = dispatcher_of(subscription("wh-2"), restored=records_of(written(before)))
    assert Entry(*DELIVERIES, b"wh-1/0", None) in written(after)


def test_a_lane_that_is_behind_reads_the_log_and_then_walks_with_the_rest() -> None:
    total = RECENT_MAX + 200
    records = [record_of(offset) for offset in range(total + 1)]
    dispatcher = dispatcher_of(subscription("wh-1"), head=total)
    got: list[int] = []
    read_in_all = 0
    while len(got) < total + 1:
        posts, reads = dispatcher.actions(START_MS)
        assert posts or reads
        for read in reads:
            found = records[read.offset : min(read.offset + read.most, total)]
            read_in_all += len(found)
            dispatcher.give(read, found)
        for post in posts:
            got.append(post.event.offset)
            dispatcher.settle(post, DELIVERED, START_MS)
            if len(got) == total:
                dispatcher.take_events([records[total]])
    assert got == list(range(total + 1))
    assert read_in_all == total


def test_a_read_that_failed_is_asked_for_again_and_one_that_found_nothing_passes_only_what_was_there() -> None:
    dispatcher = dispatcher_of(subscription("wh-1"), head=5)
    _, (read,) = dispatcher.actions(START_MS)
    dispatcher.give(read, None)
    _, (again,) = dispatcher.actions(START_MS)
    assert again == read
    # Meanwhile an event came: it is none of those that the read was about.
    dispatcher.take_events([record_of(5)])
    dispatcher.give(again, [])
    posts, reads = dispatcher.actions(START_MS)
    assert ([post.event.offset for post in posts], reads) == ([5], [])


@pytest.mark.parametrize("value", [b"{", b'{"payload":"e30="}', b'{"payload":"!","payloadType":"x","signatures":[]}'])
def test_what_is_no_event_is_passed_over(value: bytes) -> None:
    record = Record(0, b"r-1", value, START_MS)
    assert posted_event(record) is None
    dispatcher = dispatcher_of(subscription("wh-1"))
    dispatcher.take_events([record, record_of(1)])
    posts, _ = dispatcher.actions(START_MS)
    assert [post.event.offset for post in posts] == [1]


def test_a_subscription_of_a_newer_version_that_can_not_be_read_changes_nothing() -> None:
    dispatcher = dispatcher_of(subscription("wh-1"))
    dispatcher.take_subscriptions([Record(1, b"wh-1", b'{"id":7}', START_MS)])
    assert [lane.subscription.id for lane in dispatcher.lanes] == ["wh-1"]


def test_the_next_time_to_look_is_that_of_the_earliest_retry() -> None:
    dispatcher = dispatcher_of(subscription("wh-1"), subscription("wh-2"))
    assert dispatcher.next_ms() is None
    dispatcher.take_events([record_of(0)])
    posts, _ = dispatcher.actions(START_MS)
    for post, at_ms in zip(posts, (START_MS, START_MS + 100), strict=True):
        dispatcher.settle(post, FAILED, at_ms)
    assert dispatcher.actions(START_MS + 100) == ([], [])
    next_ms = dispatcher.next_ms()
    assert next_ms is not None
    assert START_MS + 100 < next_ms <= START_MS + 1000
    assert len(dispatcher.actions(START_MS + 1100)[0]) == 2
