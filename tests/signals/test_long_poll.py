"""Long poll with a plain HTTP client: never misses, never repeats, waits no longer than asked, and is bounded."""

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detectors.drill import PRODUCT, VENDOR
from detectors.verdict import DecisionWord
from ingest.events import encoder
from ingest.log.interface import Entry, TopicPartition
from ingest.topics import Topics
from signals.client import KillSwitchClient
from signals.events import Switch, SwitchState
from signals.killswitch.event import cloud_event
from signals.killswitch.verify import open_event, parse_envelope
from support.openapi import check_answer
from support.streams import READER, REPORTER, StreamRig, eventually, streaming
from support.switches import KEYS, ROLLOUT, SIGNER, START_MS, verdict

PATH = "/v1/killswitch/events"
OTHER = "r-fedcba9876543210"


@pytest.fixture(scope="module")
def rig() -> Iterator[StreamRig]:
    """One listener; each test makes what it needs behind the events of the others."""
    with streaming(Topics(keyed_partitions=1)) as running:
        running.declare(OTHER)
        yield running


@pytest.fixture(scope="module")
def parted() -> Iterator[StreamRig]:
    """A listener on three partitions, whose events the test writes itself."""
    with streaming(Topics(keyed_partitions=3)) as running:
        yield running


def switch_of(rollout: str, number: int) -> Switch:
    return Switch(
        rollout=rollout,
        number=number,
        previous_digest="",
        lane="live",
        vendor="v",
        product="p",
        version="1",
        state=SwitchState.WATCHING,
        previous_state=SwitchState.OBSERVING,
        decision=DecisionWord.PROCEED,
        cause="detector",
        reason="evidence_rising",
        sentence="rising",
        watermark_ms=START_MS,
        decided_ms=START_MS,
    )


def ask(rig: StreamRig, **query: object) -> dict[str, Any]:
    with rig.http(READER) as http:
        answer = http.get(PATH, params={name.rstrip("_"): str(value) for name, value in query.items()}, timeout=90)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def ids(page: dict[str, Any]) -> list[str]:
    return [open_event(parse_envelope(encoder.encode(event)), KEYS).event.id for event in page["events"]]


def happen(rig: StreamRig, count: int, rollout: str = ROLLOUT) -> list[str]:
    """Make events by turns of hold and proceed; return their ids."""
    before = len(rig.records(rig.killswitch))
    words = (DecisionWord.HOLD, DecisionWord.PROCEED)
    known = rig.service.views.switch(rollout)
    held = known is not None and known.state == "held"
    for turn in range(count):
        rig.say(verdict(words[(turn + held) % 2], rollout=rollout, at_ms=START_MS + before + turn))
    eventually(lambda: len(rig.records(rig.killswitch)) == before + count)
    eventually(lambda: rig.service.hub.cursor == {0: before + count})
    return [event.event.id for event in rig.events()[before:]]


def everything(rig: StreamRig, limit: int, **query: object) -> list[str]:
    """Return the ids of all events, page by page."""
    found: list[str] = []
    page = ask(rig, from_="start", limit=limit, **query)
    while page["events"]:
        assert len(page["events"]) <= limit
        found += ids(page)
        page = ask(rig, after=page["next"], limit=limit, **query)
    return found


def test_pages_hold_what_the_stream_gives_in_its_order(rig: StreamRig) -> None:
    happen(rig, 7)
    happen(rig, 4, OTHER)
    count = len(rig.records(rig.killswitch))
    with KillSwitchClient(rig.url, KEYS, token=READER, from_start=True) as client:
        stream = [verified.event.id for verified in itertools.islice(client.verified(), count)]
    for limit in (1, 3, 500):
        assert everything(rig, limit) == stream
    assert everything(rig, 2, rollout=OTHER) == [name for name in stream if name.startswith(OTHER)]


def test_an_envelope_is_as_it_was_signed(rig: StreamRig) -> None:
    happen(rig, 1)
    with rig.http(READER) as http:
        text = http.get(PATH, params={"from": "start"}).content
    assert all(record.value is not None and record.value in text for record in rig.records(rig.killswitch)[:100])


def test_a_waiting_poll_answers_as_soon_as_something_happens(rig: StreamRig) -> None:
    begun = ask(rig)
    assert begun["events"] == []
    answered: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: answered.append(ask(rig, after=begun["next"], wait=60)))
    waiting.start()
    eventually(lambda: len(rig.service.hub._subscribers) == 1)
    made, at = happen(rig, 1), time.monotonic()
    waiting.join(30)
    assert time.monotonic() - at < 20
    assert ids(answered[0]) == made
    assert ask(rig, after=answered[0]["next"])["events"] == []
    # A cursor is good for both: the stream's id and the poll's next are the same text.
    assert answered[0]["next"] == f"0:{len(rig.records(rig.killswitch))}"


def test_a_poll_waits_no_longer_than_asked_and_its_cursor_stays(rig: StreamRig) -> None:
    begun, at = ask(rig), time.monotonic()
    page = ask(rig, after=begun["next"], wait=0.3)
    assert time.monotonic() - at >= 0.3
    assert page == {"events": [], "next": begun["next"]}


def test_what_is_not_wanted_is_passed_over_and_never_read_again(rig: StreamRig) -> None:
    begun = ask(rig)
    happen(rig, 120)
    page = ask(rig, after=begun["next"], rollout=OTHER)
    assert (page["events"], page["next"]) == ([], ask(rig)["next"])


def test_drills_are_for_those_who_ask(rig: StreamRig) -> None:
    begun = ask(rig)
    drill = verdict(DecisionWord.HOLD, rollout="r-drill")
    drill.vendor, drill.product = VENDOR, PRODUCT
    rig.say(drill)
    eventually(lambda: rig.service.views.switch("r-drill") is not None)
    real = happen(rig, 1)
    by_word = {word: ids(ask(rig, after=begun["next"], drills=word)) for word in ("none", "include", "only")}
    assert by_word == {"none": real, "include": ["r-drill/1", *real], "only": ["r-drill/1"]}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.booleans()), min_size=1, max_size=5))
def test_a_client_that_polls_while_events_happen_sees_each_once_in_order(
    rig: StreamRig, steps: list[tuple[int, int, bool]]
) -> None:
    """Whatever happens between its polls, and however often an answer is lost and asked for again."""
    place, seen, made = ask(rig)["next"], list[str](), list[str]()
    for count, limit, lost in steps:
        made += happen(rig, count) if count else []
        if lost:
            ask(rig, after=place, limit=limit)
        page = ask(rig, after=place, limit=limit)
        seen, place = seen + ids(page), page["next"]
    while (page := ask(rig, after=place, limit=2))["events"]:
        seen, place = seen + ids(page), page["next"]
    assert seen == made


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.integers(0, 2), min_size=1, max_size=12),
    limit=st.integers(1, 5),
    cut=st.integers(0, 12),
)
def test_over_several_partitions_each_event_comes_once_in_its_partitions_order(
    parted: StreamRig, places: list[int], limit: int, cut: int
) -> None:
    topic, place = parted.topics.name("killswitch"), ask(parted)["next"]
    made: dict[int, list[str]] = {0: [], 1: [], 2: []}
    seen: list[str] = []

    def append(partitions: list[int]) -> None:
        for partition in partitions:
            # A name that no other example has: the cursor's own numbers.
            rollout = f"r-{place.replace(':', '-').replace(',', '.')}-{partition}"
            made[partition].append(f"{rollout}/{len(made[partition]) + 1}")
            said = switch_of(rollout, len(made[partition]))
            envelope = SIGNER.sign(encoder.encode(cloud_event(said)))
            parted.log.append([Entry(topic, partition, rollout.encode(), encoder.encode(envelope))])
        ends = {n: parted.log.bounds(TopicPartition(topic, n))[1] for n in range(3)}
        eventually(lambda: parted.service.hub.cursor == ends)

    after = place
    for partitions in (places[:cut], places[cut:]):
        append(partitions)
        while (page := ask(parted, after=after, limit=limit))["events"]:
            seen, after = seen + ids(page), page["next"]
    for names in made.values():
        assert [name for name in seen if name in names] == names
    assert len(seen) == len(places)


def test_as_many_wait_as_may_and_one_that_leaves_makes_room() -> None:
    with streaming(subscribers_max=1) as rig:
        with pytest.raises(httpx2.ReadTimeout), rig.http(READER) as http:
            http.get(PATH, params={"wait": 60}, timeout=0.3)
        eventually(lambda: not rig.service.hub._subscribers)
        waiting = threading.Thread(target=lambda: ask(rig, wait=60))
        waiting.start()
        eventually(lambda: len(rig.service.hub._subscribers) == 1)
        with rig.http(READER) as http:
            refused = http.get(PATH, params={"wait": 1})
        assert (refused.status_code, refused.json()["reason"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        # A process that stops answers those who wait, and takes no others.
        rig.close_streams()
        waiting.join(20)
        assert not waiting.is_alive()
        with rig.http(READER) as http:
            assert http.get(PATH).json()["reason"] == "draining"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("wait=61", "from 0 to 60"),
        ("wait=-1", "from 0 to 60"),
        ("wait=nan", "from 0 to 60"),
        ("wait=soon", "from 0 to 60"),
        ("limit=0", "from 1 to 500"),
        ("limit=501", "from 1 to 500"),
        ("limit=1.5", "from 1 to 500"),
        ("after=7", "from=latest or start"),
        ("after=1:0", "partitions"),
        ("after=0:999999", "ahead"),
        ("from=begin", "latest or start"),
        ("drills=all", "none, include or only"),
        ("waitt=1", "no such parameter: waitt"),
        ("wait=1&wait=2", "twice"),
    ],
)
def test_what_is_no_poll_is_an_error_that_says_what_is(rig: StreamRig, query: str, says: str) -> None:
    with rig.http(READER) as http:
        answer = http.get(f"{PATH}?{query}")
        check_answer(http.get("/v1/openapi.json").json(), "GET", PATH, answer)
    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")
    assert says in answer.json()["detail"]


def test_polls_need_a_known_rollout_and_a_token_that_may_read(rig: StreamRig) -> None:
    with rig.http(READER) as http:
        assert http.get(PATH, params={"rollout": "r-typo"}).status_code == 404
        check_answer(http.get("/v1/openapi.json").json(), "GET", PATH, http.get(PATH))
    with rig.http(REPORTER) as http:
        assert http.get(PATH).status_code == 403
