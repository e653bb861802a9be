"""Through the gateway: posts of 500 reports until they are counted, and posts of a single report."""

import time
from collections import Counter

from deploy.bench.figures import Figure, at_least, printed
from deploy.bench.load import post_all, requests_of
from deploy.bench.server import Served, served
from deploy.bench.traffic import Traffic, chunks
from ingest.clock import WallClock
from ingest.events import encoder

BATCH = 500
WARM_POSTS, BATCH_POSTS, BATCH_CONNECTIONS = 100, 2000, 48
SINGLE_POSTS, SINGLE_CONNECTIONS = 40_000, 1024
DEVICES = 85_000
COUNT_SECONDS_MAX = 120.0


def measure() -> list[Figure]:
    """Return the figures of the HTTP gateway, from the first byte sent to the last report counted."""
    with served(store=True, device_partitions=8) as cordon:
        traffic = Traffic(DEVICES, pseudonyms=False)
        now_ms = WallClock().now_ms() - 60_000
        made = traffic.reports((WARM_POSTS + BATCH_POSTS) * BATCH, now_ms)
        bodies = [encoder.encode(part) for part in chunks(made, BATCH)]
        requests = requests_of(cordon.reports, cordon.token, bodies)
        post_all(cordon.reports, requests[:WARM_POSTS], 8)
        cordon.wait_counted(WARM_POSTS * BATCH, COUNT_SECONDS_MAX)
        posted, codes = post_all(cordon.reports, requests[WARM_POSTS:], BATCH_CONNECTIONS)
        _check(codes, BATCH_POSTS)
        counted = posted + _until_counted(cordon, len(made))
        del made, bodies, requests
        singles = traffic.reports(SINGLE_POSTS, now_ms + 1000)
        requests = requests_of(cordon.reports, cordon.token, [encoder.encode(report) for report in singles])
        seconds, codes = post_all(cordon.reports, requests, SINGLE_CONNECTIONS)
        _check(codes, SINGLE_POSTS)
        memory = cordon.rss_bytes() / 1e6
    batches = BATCH_POSTS * BATCH
    return [
        at_least("HTTP to counted, posts of 500", batches / counted, "reports/s", 100_000),
        printed("the same, to the last 202", batches / posted, "reports/s"),
        at_least("posts of a single report", SINGLE_POSTS / seconds, "posts/s", 3_500),
        printed("memory of the process after it", memory, "MB"),
    ]


def _until_counted(cordon: Served, reports: int) -> float:
    started = time.perf_counter()
    cordon.wait_counted(reports, COUNT_SECONDS_MAX)
    return time.perf_counter() - started


def _check(codes: Counter[int], posts: int) -> None:
    if codes != {202: posts}:
        raise RuntimeError(f"{posts} posts were answered with {dict(codes)}; each should be 202")
