"""Server-sent events under the real server with real clients: resume, cut, close, and a thousand at once."""

import asyncio
import contextlib
import functools
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest

from detectors.verdict import DecisionWord
from ingest.topics import Topics
from signals.client import KillSwitchClient, RefusedError, Switch
from support.streams import OPERATOR, READER, REPORTER, StreamRig, eventually, streaming
from support.switches import KEYS, ROLLOUT, START_MS, verdict

OTHER = "r-fedcba9876543210"


@pytest.fixture
def rig() -> Iterator[StreamRig]:
    with streaming() as running:
        yield running


@pytest.fixture(scope="module")
def shared_rig() -> Iterator[StreamRig]:
    """One listener for tests that leave nothing behind."""
    with streaming() as running:
        yield running


def flap(rig: StreamRig, times: int, rollout: str = ROLLOUT, start: int = 0) -> None:
    """Let the detector hold and lift in turn: each verdict makes an event."""
    words = (DecisionWord.HOLD, DecisionWord.PROCEED)
    rig.say(*(verdict(words[n % 2], rollout=rollout, at_ms=START_MS + n) for n in range(start, start + times)))


def collect(
    rig: StreamRig, most: int, *, from_start: bool = False, last_event_id: str | None = None
) -> tuple[list[Switch], str]:
    """Return the first events a client sees, and its cursor."""
    with KillSwitchClient(
        rig.url, KEYS, token=READER, from_start=from_start, last_event_id=last_event_id, connects_max=3
    ) as client:
        found = []
        for switch in client.events():
            found.append(switch)
            if len(found) == most:
                break
        return found, client.last_event_id or ""


def test_from_start_brings_every_event_in_order(rig: StreamRig) -> None:
    flap(rig, 250)
    found, _ = collect(rig, 250, from_start=True)
    assert [switch.number for switch in found] == list(range(1, 251))


def test_a_live_event_arrives_within_half_a_second(rig: StreamRig) -> None:
    connected = threading.Event()
    arrived: list[tuple[float, Switch]] = []

    def listen() -> None:
        with KillSwitchClient(rig.url, KEYS, token=READER, on_connect=connected.set) as client:
            for switch in client.events():
                arrived.append((time.monotonic(), switch))
                return

    thread = threading.Thread(target=listen)
    thread.start()
    assert connected.wait(5)
    said = time.monotonic()
    rig.say(verdict(DecisionWord.KILL))
    thread.join(5)
    assert arrived[0][1].decision is DecisionWord.KILL
    assert arrived[0][0] - said < 0.5


def test_resume_is_exact_at_every_place_and_over_several_partitions() -> None:
    with streaming(Topics(keyed_partitions=1)) as rig:
        flap(rig, 30)
        eventually(lambda: len(rig.records(rig.killswitch)) == 30)
        _, cursor = collect(rig, 10, from_start=True)
        seen = 10
        while seen < 30:
            found, cursor = collect(rig, 7 if seen < 24 else 6, last_event_id=cursor)
            assert [switch.number for switch in found] == list(range(seen + 1, seen + 1 + len(found)))
            seen += len(found)


def test_a_client_that_was_cut_off_resumes_by_itself(rig: StreamRig) -> None:
    connects = threading.Semaphore(0)
    found: list[int] = []

    def listen() -> None:
        with KillSwitchClient(rig.url, KEYS, token=READER, on_connect=connects.release) as client:
            for switch in client.events():
                found.append(switch.number)
                if switch.number == 20:
                    return

    thread = threading.Thread(target=listen)
    thread.start()
    assert connects.acquire(timeout=5)
    flap(rig, 5)
    eventually(lambda: len(found) == 5)
    rig.loop.call_soon_threadsafe(_cut_all, rig)
    flap(rig, 15, start=5)
    thread.join(20)
    assert found == list(range(1, 21))
    assert connects.acquire(timeout=1)


def _cut_all(rig: StreamRig) -> None:
    for subscriber in list(rig.service.hub._subscribers):
        subscriber.cut()


def test_a_slow_subscriber_is_cut_and_the_others_are_not() -> None:
    with contextlib.ExitStack() as stack:
        rig = stack.enter_context(streaming(queue_max=8))
        client = stack.enter_context(KillSwitchClient(rig.url, KEYS, token=READER))
        fast: list[int] = []
        total = 4000
        opened = threading.Event()
        client._on_connect = opened.set

        def listen() -> None:
            for switch in client.events():
                fast.append(switch.number)
                if switch.number == total:
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        assert opened.wait(5)
        slow = stack.enter_context(socket.create_connection(("127.0.0.1", rig.port)))
        slow.sendall(
            f"GET /v1/killswitch/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {READER}\r\n\r\n".encode()
        )
        eventually(lambda: rig.metrics.value("stream_subscribers") == 2)
        for start in range(0, total, 50):
            flap(rig, 50, start=start)
            eventually(functools.partial(_reached, fast, start + 50), 20)
        eventually(lambda: rig.metrics.value("stream_cut_total") == 1, 10)
        thread.join(20)
        assert fast == list(range(1, total + 1))
        # The connection ends once what was sent is read: the subscriber notices, and resumes.
        slow.settimeout(10)
        while slow.recv(1 << 20):
            pass


def _reached(numbers: list[int], most: int) -> bool:
    return len(numbers) >= most


def test_close_streams_ends_all_at_once_and_admits_no_more(rig: StreamRig) -> None:
    with rig.http(READER) as http, http.stream("GET", "/v1/killswitch/stream") as response:
        eventually(lambda: rig.metrics.value("stream_subscribers") == 1)
        began = time.monotonic()
        rig.close_streams()
        list(response.iter_bytes())
        assert time.monotonic() - began < 2
        refused = http.get("/v1/killswitch/stream")
        assert (refused.status_code, refused.json()["reason"]) == (503, "draining")
        assert int(refused.headers["retry-after"]) > 0


def test_heartbeats_keep_an_idle_stream_alive(rig: StreamRig) -> None:
    with rig.http(READER) as http, http.stream("GET", "/v1/killswitch/stream") as response:
        text = ""
        for piece in response.iter_text():
            text += piece
            if text.count(": heartbeat\n\n") == 2:
                break
        assert text.startswith("retry: 1000\nid: 0:0\n\n")
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"


def test_a_subscriber_that_leaves_is_forgotten(rig: StreamRig) -> None:
    with rig.http(READER) as http, http.stream("GET", "/v1/killswitch/stream"):
        eventually(lambda: rig.metrics.value("stream_subscribers") == 1)
    eventually(lambda: rig.metrics.value("stream_subscribers") == 0)
    assert rig.metrics.value("stream_cut_total") == 0


def test_the_filter_brings_one_rollout_only(rig: StreamRig) -> None:
    rig.declare(OTHER)
    flap(rig, 4, OTHER)
    flap(rig, 2)
    eventually(lambda: len(rig.records(rig.killswitch)) == 6)
    with KillSwitchClient(rig.url, KEYS, token=READER, rollout=ROLLOUT, from_start=True) as client:
        events = client.events()
        assert [next(events).rollout for _ in range(2)] == [ROLLOUT, ROLLOUT]


def test_too_many_subscribers_are_told_when_to_come_back() -> None:
    with streaming(subscribers_max=1) as rig, rig.http(READER) as http, http.stream("GET", "/v1/killswitch/stream"):
        refused = http.get("/v1/killswitch/stream")
        assert (refused.status_code, refused.json()["reason"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("path", "token", "status", "reason"),
    [
        ("/v1/killswitch/stream", "nobody", 401, "unauthenticated"),
        ("/v1/killswitch/stream", REPORTER, 403, "forbidden"),
        ("/v1/killswitch/stream?rollout=r-typo", OPERATOR, 404, "not_found"),
        ("/v1/killswitch/stream?from=yesterday", OPERATOR, 400, "bad_request"),
        ("/v1/killswitch/stream?form=start", OPERATOR, 400, "bad_request"),
        ("/v1/killswitch/stream?last_event_id=7", OPERATOR, 400, "bad_request"),
        ("/v1/killswitch/stream?last_event_id=0:7", OPERATOR, 400, "bad_request"),
        ("/v1/killswitch/stream?last_event_id=0:0,1:0", OPERATOR, 400, "bad_request"),
    ],
)
def test_a_subscription_that_cannot_be_served_says_why(
    shared_rig: StreamRig, path: str, token: str, status: int, reason: str
) -> None:
    answer = httpx2.get(shared_rig.url + path, headers={"authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)


def test_the_client_says_that_it_was_refused_for_good(shared_rig: StreamRig) -> None:
    with KillSwitchClient(shared_rig.url, KEYS, token=REPORTER) as client, pytest.raises(RefusedError, match="403"):
        next(client.events())


def fan_out_seconds(rig: StreamRig, subscribers: int) -> list[float]:
    """Return, for each subscriber, the time from the verdict's append to the event's first byte."""

    async def listen(ready: asyncio.Semaphore) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(
            f"GET /v1/killswitch/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {READER}\r\n\r\n".encode()
        )
        await reader.readuntil(b"id: 0:0\n\n")
        ready.release()
        await reader.readuntil(b"event: killswitch\n")
        arrived = time.monotonic()
        writer.close()
        return arrived

    async def run() -> list[float]:
        ready = asyncio.Semaphore(0)
        listeners = []
        for n in range(subscribers):
            listeners.append(asyncio.create_task(listen(ready)))
            if n % 50 == 49:
                await asyncio.sleep(0.01)
        for _ in range(subscribers):
            await ready.acquire()
        said = time.monotonic()
        await asyncio.to_thread(rig.say, verdict(DecisionWord.KILL))
        return [arrived - said for arrived in await asyncio.gather(*listeners)]

    return asyncio.run(run())


@pytest.mark.slow
def test_a_thousand_subscribers_see_an_event_within_a_second(record_property: Callable[[str, object], None]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with streaming(heartbeat_seconds=15) as rig:
        seconds = sorted(fan_out_seconds(rig, 1000))
    record_property("p50_ms", round(seconds[500] * 1000))
    record_property("max_ms", round(seconds[-1] * 1000))
    print(f"1,000 subscribers: p50 {seconds[500] * 1000:.0f} ms, all within {seconds[-1] * 1000:.0f} ms")  # noqa: T201
    assert seconds[-1] < 1.0
