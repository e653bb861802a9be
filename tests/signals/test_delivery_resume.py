"""Cursors, and a stream over several partitions resumed at each of its places."""

import itertools
import threading

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.verdict import DecisionWord
from ingest.events import encoder
from ingest.log.interface import Entry
from ingest.metrics import Metrics
from ingest.topics import Topics
from signals.delivery.cursor import CursorError, decode_cursor, encode_cursor
from signals.delivery.hub import Frame, StreamHub, Subscriber
from signals.delivery.wanted import Wanted
from signals.events import Envelope, Switch, SwitchState
from signals.killswitch.event import cloud_event
from signals.killswitch.verify import open_event, parse_envelope
from support.streams import READER, streaming
from support.switches import KEYS, SIGNER, START_MS, SwitchRig

PARTITIONS = 3


@given(offsets=st.dictionaries(st.integers(0, 1023), st.integers(0, 10**15), min_size=1, max_size=20))
def test_a_cursor_reads_back_as_it_was(offsets: dict[int, int]) -> None:
    assert decode_cursor(encode_cursor(offsets), offsets) == offsets


@given(text=st.text(max_size=40))
def test_any_other_text_is_an_error_of_ours(text: str) -> None:
    try:
        assert encode_cursor(decode_cursor(text, [0, 1])) == text or text[0] in "01"
    except CursorError:
        return


@pytest.mark.parametrize("text", ["0:1", "0:1,0:2", "0:1,2:1", "0:1,1:1,2:1", "0:-1,1:1", "0:1,1:1\n", "\u0660:1,1:1"])
def test_a_cursor_must_name_exactly_the_streams_partitions(text: str) -> None:
    with pytest.raises(CursorError):
        decode_cursor(text, [0, 1])


def signed(rollout: str, number: int, previous: str) -> Envelope:
    switch = Switch(
        rollout=rollout,
        number=number,
        previous_digest=previous,
        lane="live",
        vendor="v",
        product="p",
        version="1",
        state=SwitchState.HELD,
        previous_state=SwitchState.OBSERVING,
        decision=DecisionWord.HOLD,
        cause="detector",
        reason="hold_evidence",
        sentence="for a test",
        watermark_ms=START_MS,
        decided_ms=START_MS,
    )
    return SIGNER.sign(encoder.encode(cloud_event(switch)))


def write(rig: SwitchRig, count: int) -> list[str]:
    """Append `count` events round-robin over the partitions, one rollout each; return their ids."""
    last = dict.fromkeys(range(PARTITIONS), "")
    ids = []
    for n in range(count):
        partition = n % PARTITIONS
        envelope = signed(f"r-{partition}", n // PARTITIONS + 1, last[partition])
        verified = open_event(envelope, KEYS)
        last[partition] = verified.digest
        ids.append(verified.event.id)
        rig.log.append([Entry(rig.killswitch.topic, partition, f"r-{partition}".encode(), encoder.encode(envelope))])
    return ids


def read(url: str, most: int, place: str | None) -> list[tuple[str, str]]:
    """Return the first events as (event id, cursor), read with httpx2's own event source."""
    headers = {"authorization": f"Bearer {READER}"} | ({"last-event-id": place} if place else {})
    with (
        httpx2.Client(timeout=10) as http,
        http.stream("GET", f"{url}/v1/killswitch/stream?from=start", headers=headers) as response,
    ):
        events = (sent for sent in httpx2.EventSource(response) if sent.event == "killswitch")
        return [
            (open_event(parse_envelope(sent.data.encode()), KEYS).event.id, sent.id)
            for sent in itertools.islice(events, most)
        ]


def test_resuming_at_each_place_brings_the_rest_once_and_nothing_else() -> None:
    with streaming(Topics(keyed_partitions=PARTITIONS)) as rig:
        ids = write(rig, 30)
        whole = read(rig.url, 30, None)
        assert sorted(event for event, _ in whole) == sorted(ids)
        for seen in range(0, 30, 3):
            rest = read(rig.url, 30 - seen, whole[seen - 1][1] if seen else None)
            assert sorted(event for event, _ in [*whole[:seen], *rest]) == sorted(ids)


def test_live_events_over_several_partitions_resume_exactly() -> None:
    with streaming(Topics(keyed_partitions=PARTITIONS)) as rig:
        found: list[tuple[str, str]] = []
        thread = threading.Thread(target=lambda: found.extend(read(rig.url, 300, None)))
        thread.start()
        ids = write(rig, 300)
        thread.join(20)
        assert sorted(event for event, _ in found) == sorted(ids)
        rest = read(rig.url, 100, found[199][1])
        assert sorted(event for event, _ in [*found[:200], *rest]) == sorted(ids)


class TestHub:
    def test_a_burst_larger_than_the_bound_cuts_nobody_who_was_up_to_date(self) -> None:
        hub = StreamHub(queue_max=4, subscribers_max=10, metrics=Metrics())
        subscriber = hub.admit(Wanted())
        assert subscriber is not None
        subscriber.position = hub.head
        for _ in range(2):
            hub._add([_frame(n) for n in range(50)])
            assert hub.take(subscriber).count(b"x") == 50

    def test_whoever_is_behind_by_more_than_the_bound_is_cut_once(self) -> None:
        metrics = Metrics()
        hub = StreamHub(queue_max=4, subscribers_max=10, metrics=metrics)
        cuts: list[Subscriber] = []
        slow = hub.admit(Wanted())
        assert slow is not None
        slow.position, slow.cut = hub.head, lambda: cuts.append(slow)
        for n in range(5):
            hub._add([_frame(n)])
        assert cuts == []
        for n in range(20):
            hub._add([_frame(n)])
        assert cuts == [slow]
        assert metrics.value("stream_cut_total") == 1
        assert metrics.value("stream_subscribers") == 0

    def test_frames_kept_are_bounded(self) -> None:
        hub = StreamHub(queue_max=4, subscribers_max=10, metrics=Metrics())
        for n in range(1000):
            hub._add([_frame(n)])
        assert len(hub._frames) <= 5


def _frame(_n: int) -> Frame:
    return Frame(b"x", None)
