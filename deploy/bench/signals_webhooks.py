"""Decision to subscriber by webhook: 1,000 subscribers of which 10 % hang, in a process of their own.

Every subscriber has an address of its own in 127/8, and so connections of its own. A hanging one takes the post and
never answers. Figures are of the 900 that answer; that each had each event once is a figure too.
"""

import asyncio
import os
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from time import time

import httpx2
import uvloop
from aiohttp import web

from deploy.bench.figures import Figure, at_least, at_most, printed
from deploy.bench.server import Served, served
from deploy.bench.signals_decide import Arrival, Decisions, arrival_of, percentile

SUBSCRIBERS, HANGING, EVENTS = 1000, 100, 30
PAUSE_SECONDS = 0.5
BOUND_MS = 1000
_HTTP_SECONDS = 60.0


def hangs(number: int) -> bool:
    """Tell whether a subscriber never answers."""
    return number % (SUBSCRIBERS // HANGING) == 0


def address_of(number: int) -> str:
    """Return a subscriber's own loopback address."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


def receive(arrived: "Synchronized[int]", parent: "Connection[object, object]") -> None:
    """Serve every receiver on one port, tell it, note when each event comes, and hand over the arrivals when asked."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_receive(arrived, parent))


async def _receive(arrived: "Synchronized[int]", parent: "Connection[object, object]") -> None:
    noted: list[tuple[int, bytes, float]] = []
    for_ever = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        body, now = await request.read(), time()
        if hangs(number):
            await for_ever.wait()
        noted.append((number, body, now))
        arrived.value += 1
        return web.Response()

    app = web.Application()
    app.router.add_post("/{number}", take)
    serving = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await serving.setup()
    # Loopback addresses are ours alone; a socket for each of a thousand would measure the opening of sockets.
    site = web.TCPSite(serving, "0.0.0.0", 0, backlog=4096)  # noqa: S104
    await site.start()
    parent.send(serving.addresses[0][1])
    await asyncio.to_thread(parent.poll, None)
    parent.send([(number, arrival_of(body, at)) for number, body, at in noted])
    await asyncio.sleep(3600)


def subscribe(cordon: Served, port: int) -> None:
    """Make a webhook for every receiver."""
    headers = {"authorization": f"Bearer {cordon.token}"}
    with httpx2.Client(headers=headers, timeout=_HTTP_SECONDS, trust_env=False) as http:
        for number in range(SUBSCRIBERS):
            url = f"http://{address_of(number)}:{port}/{number}"
            http.post(f"{cordon.streams}/v1/webhooks", json={"url": url}).raise_for_status()


def hear(cordon: Served) -> list[tuple[int, Arrival]]:
    """Return every arrival of every event, with the subscriber's number."""
    context = get_context("spawn")
    arrived, (mine, theirs) = context.Value("q", 0), context.Pipe()
    child = context.Process(target=receive, args=(arrived, theirs), daemon=True)
    child.start()
    try:
        port = mine.recv()
        assert isinstance(port, int)
        subscribe(cordon, port)
        decisions = Decisions(cordon)
        decisions.hold_each(decisions.declare(EVENTS), arrived, SUBSCRIBERS - HANGING, PAUSE_SECONDS)
        mine.send("end")
        found = mine.recv()
        assert isinstance(found, list)
        return found
    finally:
        child.terminate()
        child.join()


def processor_seconds(pid: int) -> float:
    """Return how long a process has worked."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure() -> list[Figure]:
    """Return the figures of webhooks."""
    with served(webhook_private_targets="127.0.0.0/8") as cordon:
        before, worked = cordon.rss_bytes(), processor_seconds(cordon.pid)
        found = hear(cordon)
        grown = (cordon.rss_bytes() - before) / (1 << 20)
        worked = processor_seconds(cordon.pid) - worked
    milliseconds = [arrival.seconds * 1000 for _, arrival in found]
    each = Counter((number, arrival.rollout) for number, arrival in found)
    answering = SUBSCRIBERS - HANGING
    name = f"decision to each of {answering} webhooks beside {HANGING} that hang"
    return [
        at_most(f"{name}, p99", percentile(milliseconds, 0.99), "ms", BOUND_MS),
        printed("the same, median", percentile(milliseconds, 0.5), "ms"),
        printed("the same, worst", max(milliseconds), "ms"),
        at_least("deliveries, each event once at each", len(each), "deliveries", answering * EVENTS),
        at_most("posts of one event to one subscriber, most", max(each.values()), "times", 1),
        printed("processor time of the whole Cordon for a delivery", worked * 1000 / len(found), "ms"),
        printed("memory that subscriptions and queues took", grown, "MiB"),
    ]
