"""Leases and drills on the stream: who gets them, in which order, and that a burst of them cuts nobody."""

import asyncio
import base64
import json

import httpx2
import pytest

from detectors.drill import PRODUCT, VENDOR
from ingest.log.interface import Record, TopicPartition
from ingest.metrics import Metrics
from signals.delivery.hub import StreamHub, Subscriber
from signals.delivery.leases import LatestLeases
from signals.delivery.wanted import Drills, Wanted, WantedError, is_drill_envelope, wanted_of
from support.streams import READER, streaming

SOURCE = TopicPartition("cordon.killswitch.v1", 0)


def envelope(vendor: str = "v", product: str = "p", **fields: object) -> bytes:
    data = {"data": {"vendor": vendor, "product": product, **fields}}
    return json.dumps({"payload": base64.b64encode(json.dumps(data).encode()).decode(), "signatures": []}).encode()


def record(offset: int, rollout: str, value: bytes) -> Record:
    return Record(offset=offset, key=rollout.encode(), value=value, appended_at_ms=0)


class Rig:
    """A hub on a loop of its own, with subscribers that are up to date."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.metrics = Metrics()
        self.hub = StreamHub(queue_max=4, subscribers_max=10, metrics=self.metrics)
        self.run(self._open())

    async def _open(self) -> None:
        self.hub.open({0: 0})

    def run(self, doing: object) -> None:
        self.loop.run_until_complete(doing)  # type: ignore[arg-type]

    def admit(self, wanted: Wanted) -> Subscriber:
        subscriber = self.hub.admit(wanted)
        assert subscriber is not None
        subscriber.position = self.hub.head
        return subscriber

    def events(self, *records: Record) -> None:
        self.hub.offer(SOURCE, records)
        self.run(asyncio.sleep(0))

    def leases(self, *records: Record) -> None:
        self.hub.offer_leases(SOURCE, records)
        self.run(asyncio.sleep(0))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_leases_come_behind_events_without_an_id_and_only_to_those_who_ask(rig: Rig) -> None:
    asks, does_not = rig.admit(Wanted(leases=True)), rig.admit(Wanted())
    rig.leases(record(0, "r-1", envelope()))
    rig.events(record(0, "r-1", envelope()))
    event, lease = rig.hub.take(asks).split(b"\n\n")[:2]
    assert event.startswith(b"id: 0:1\nevent: killswitch\n")
    assert lease.startswith(b"event: lease\ndata: ")
    assert rig.hub.take(does_not).count(b"event: ") == 1
    assert rig.hub.take(asks) == b""
    rig.loop.close()


def test_of_each_rollout_a_slow_subscriber_gets_the_latest_lease_and_is_not_cut(rig: Rig) -> None:
    slow = rig.admit(Wanted(leases=True))
    for n in range(1000):
        rig.leases(record(n, f"r-{n % 10}", envelope(number=n)))
    assert rig.metrics.value("stream_cut_total") == 0
    assert rig.hub.take(slow).count(b"event: lease") == 10
    rig.leases(record(1000, "r-3", envelope(number=1000)))
    assert rig.hub.take(slow).count(b"event: lease") == 1
    rig.loop.close()


def test_whoever_joins_gets_the_leases_of_now(rig: Rig) -> None:
    rig.leases(record(0, "r-1", envelope()), record(1, "r-2", envelope()))
    assert rig.hub.take(rig.admit(Wanted(leases=True))).count(b"event: lease") == 2
    assert rig.hub.take(rig.admit(Wanted(rollout=b"r-2", leases=True))).count(b"event: lease") == 1
    gone = Record(offset=2, key=b"r-2", value=None, appended_at_ms=0)
    rig.leases(gone)
    assert rig.hub.take(rig.admit(Wanted(rollout=b"r-2", leases=True))) == b""
    rig.loop.close()


def test_leases_wake_those_who_ask_for_them_and_nobody_else(rig: Rig) -> None:
    async def woken() -> tuple[bool, bool]:
        waits = [asyncio.ensure_future(rig.hub.changed(Subscriber(Wanted(leases=asks)))) for asks in (True, False)]
        await asyncio.sleep(0)
        rig.hub._lease([record(0, "r-1", envelope())])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done = (waits[0].done(), waits[1].done())
        rig.hub.close()
        await asyncio.gather(*waits)
        return done

    assert rig.loop.run_until_complete(woken()) == (True, False)
    rig.loop.close()


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (Wanted(), {b"r-real"}),
        (Wanted(drills=Drills.INCLUDE), {b"r-real", b"r-drill"}),
        (Wanted(drills=Drills.ONLY), {b"r-drill"}),
        (Wanted(rollout=b"r-drill"), {b"r-drill"}),
    ],
)
def test_drills_reach_those_who_ask_for_them(rig: Rig, wanted: Wanted, seen: set[bytes]) -> None:
    subscriber = rig.admit(Wanted(wanted.rollout, wanted.drills, leases=True))
    rig.events(record(0, "r-real", envelope(rollout="r-real")), record(1, "r-drill", envelope(VENDOR, PRODUCT)))
    rig.leases(record(0, "r-real", envelope(rollout="r-real")), record(1, "r-drill", envelope(drill=True)))
    text = rig.hub.take(subscriber)
    assert text.count(b"event: killswitch") == text.count(b"event: lease") == len(seen)
    rig.loop.close()


def test_what_can_not_be_read_is_no_drill_and_is_sent_to_be_refused() -> None:
    assert not any(is_drill_envelope(value) for value in (b"", b"{}", b'{"payload":"???"}', b'{"payload":"e30="}'))


def test_leases_kept_are_bounded() -> None:
    leases = LatestLeases(rollouts_max=3)
    for n in range(10):
        leases.put(b"r-%d" % n, envelope())
    assert len(leases.since(0, Wanted(leases=True))) == 3


@pytest.mark.parametrize("query", [{"drills": "yes"}, {"leases": "true"}, {"leases": ""}])
def test_a_word_that_there_is_not_is_an_error(query: dict[str, str]) -> None:
    with pytest.raises(WantedError, match="use"):
        wanted_of(query)


def test_the_listener_refuses_such_a_word() -> None:
    with streaming() as rig:
        answer = httpx2.get(
            f"{rig.url}/v1/killswitch/stream?drills=maybe", headers={"authorization": f"Bearer {READER}"}
        )
        assert (answer.status_code, answer.json()["reason"]) == (400, "bad_request")
