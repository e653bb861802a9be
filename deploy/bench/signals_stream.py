"""Decision to subscriber by stream: 1,000 subscribers in a process of their own, each event timed at each of them."""

import selectors
import socket
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from time import time
from urllib.parse import urlsplit

from deploy.bench.figures import Figure, at_least, at_most, printed
from deploy.bench.server import Served, served
from deploy.bench.signals_decide import Arrival, Decisions, arrival_of, payload_of, percentile

SUBSCRIBERS, EVENTS = 1000, 50
PAUSE_SECONDS = 0.2
BOUND_MS = 250
_CONNECTS_AT_ONCE = 50


def listen(
    url: str, token: str, count: int, arrived: "Synchronized[int]", parent: "Connection[object, object]"
) -> None:
    """Open streams, say so, note when each event comes, and hand over the arrivals when asked."""
    place = urlsplit(url)
    request = (
        f"GET /v1/killswitch/stream HTTP/1.1\r\nhost: {place.netloc}\r\nauthorization: Bearer {token}\r\n"
        "accept: text/event-stream\r\n\r\n"
    ).encode()
    selector, texts = selectors.DefaultSelector(), dict[socket.socket, bytes]()
    noted: list[tuple[bytes, float]] = []
    for number in range(count):
        opened = socket.create_connection((place.hostname or "", place.port or 80))
        opened.sendall(request)
        texts[opened] = b""
        selector.register(opened, selectors.EVENT_READ)
        if number % _CONNECTS_AT_ONCE == 0:
            _read_once(selector, texts, noted)
    while not all(b"\n\n" in text for text in texts.values()):
        _read_once(selector, texts, noted)
    parent.send("ready")
    while not parent.poll():
        before = len(noted)
        _read_once(selector, texts, noted)
        arrived.value += len(noted) - before
    seen: dict[bytes, bytes] = {}
    for data, _ in noted:
        if data not in seen:
            seen[data] = payload_of(data)
    parent.send([arrival_of(seen[data], at) for data, at in noted])


def _read_once(
    selector: selectors.BaseSelector, texts: dict[socket.socket, bytes], noted: list[tuple[bytes, float]]
) -> None:
    for key, _ in selector.select(0.05):
        opened = key.fileobj
        assert isinstance(opened, socket.socket)
        data = opened.recv(65536)
        if not data:
            raise ConnectionError("a stream ended during the bench")
        now = time()
        *blocks, rest = (texts[opened] + data).split(b"\n\n")
        kept = rest
        for block in blocks:
            if b"event: killswitch\n" in block:
                noted.append((block.partition(b"data: ")[2], now))
            else:
                # The head of the answer stays, to tell that the stream is open.
                kept = b"\n\n" + rest
        texts[opened] = kept


def hear(cordon: Served) -> list[Arrival]:
    """Return every arrival of every event."""
    context = get_context("spawn")
    arrived, (mine, theirs) = context.Value("q", 0), context.Pipe()
    child = context.Process(
        target=listen, args=(cordon.streams, cordon.token, SUBSCRIBERS, arrived, theirs), daemon=True
    )
    child.start()
    try:
        decisions = Decisions(cordon)
        rollouts = decisions.declare(EVENTS)
        assert mine.recv() == "ready"
        decisions.hold_each(rollouts, arrived, SUBSCRIBERS, PAUSE_SECONDS)
        mine.send("end")
        found = mine.recv()
        assert isinstance(found, list)
        return found
    finally:
        child.terminate()
        child.join()


def measure() -> list[Figure]:
    """Return the figures of the stream."""
    with served() as cordon:
        arrivals = hear(cordon)
    milliseconds = [arrival.seconds * 1000 for arrival in arrivals]
    per_event = Counter(arrival.rollout for arrival in arrivals)
    name = f"decision to each of {SUBSCRIBERS:,} stream subscribers"
    return [
        at_most(f"{name}, p99", percentile(milliseconds, 0.99), "ms", BOUND_MS),
        printed("the same, median", percentile(milliseconds, 0.5), "ms"),
        printed("the same, worst", max(milliseconds), "ms"),
        at_least("subscribers that had each event once", min(per_event.values()), "subscribers", SUBSCRIBERS),
        at_most("events at a subscriber, most for one rollout", max(per_event.values()) / SUBSCRIBERS, "times", 1),
    ]
