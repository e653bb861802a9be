"""What a hundred viewers cost: reports counted a second with nobody looking and with all, in turns of one run."""

import os
import statistics
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from deploy.bench.console_client import look
from deploy.bench.console_filled import fill, rollout_of
from deploy.bench.figures import Figure, at_least, printed
from deploy.bench.load import post_all, requests_of
from deploy.bench.server import Served, served
from deploy.bench.traffic import Traffic, chunks
from ingest.clock import WallClock
from ingest.events import encoder

VIEWERS, TURNS = 100, 8
BATCH, POSTS, WARM_POSTS, CONNECTIONS = 500, 240, 120, 24
DEVICES = 85_000
COUNT_SECONDS_MAX = 300.0
# What the pipeline keeps of its throughput.
KEPT_LEAST = 0.95


def measure() -> list[Figure]:
    """Return the figures of viewers."""
    pages = ["/"] * 60 + ["/rollouts"] * 20 + [f"/rollouts/{rollout_of(number % 4)}" for number in range(VIEWERS - 80)]
    with tempfile.TemporaryDirectory(prefix="cordon-bench-") as folder:
        home = Path(folder) / "data"
        fill(home)
        with served(home, store=True, device_partitions=8) as cordon:
            context = get_context("spawn")
            mine, theirs = context.Pipe()
            child = context.Process(target=look, args=(cordon.streams, cordon.token, pages, theirs), daemon=True)
            child.start()
            try:
                return _turns(cordon, mine)
            finally:
                child.terminate()
                child.join()


def _turns(cordon: Served, viewers: "Connection[object, object]") -> list[Figure]:
    traffic, counted = Traffic(DEVICES, pseudonyms=False), 0
    rates: dict[bool, list[float]] = {False: [], True: []}
    costs: dict[bool, list[float]] = {False: [], True: []}
    counted += _round(cordon, traffic, WARM_POSTS, counted)[0]
    for turn in range(TURNS):
        # Each pair in the other order, so that whatever drifts falls on both.
        for looking in (False, True) if turn % 2 else (True, False):
            viewers.send(looking)
            viewers.recv()
            before = _cpu_seconds(cordon.pid)
            reports, seconds = _round(cordon, traffic, POSTS, counted)
            counted += reports
            rates[looking].append(reports / seconds)
            costs[looking].append((_cpu_seconds(cordon.pid) - before) / reports * 1e6)
            if looking:
                viewers.send(False)
                viewers.recv()
    kept = [with_them / without for with_them, without in zip(rates[True], rates[False], strict=True)]
    return [
        at_least(f"throughput kept with {VIEWERS} viewers, median of {TURNS} pairs", statistics.median(kept), "share",
                 KEPT_LEAST),
        printed("the same, by the sums", sum(rates[True]) / sum(rates[False]), "share"),
        printed("CPU of the process for a million reports, nobody looking", statistics.median(costs[False]), "s"),
        printed(f"the same with {VIEWERS} viewers", statistics.median(costs[True]), "s"),
        printed("reports counted with nobody looking", statistics.median(rates[False]), "reports/s"),
        printed(f"reports counted with {VIEWERS} viewers", statistics.median(rates[True]), "reports/s"),
    ]  # fmt: skip


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used: what others take of the machine is not in it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _round(cordon: Served, traffic: Traffic, posts: int, before: int) -> tuple[int, float]:
    """Post reports until they are counted; return how many they were, and the seconds."""
    made = traffic.reports(posts * BATCH, WallClock().now_ms() - 1000)
    requests = requests_of(cordon.reports, cordon.token, [encoder.encode(part) for part in chunks(made, BATCH)])
    began = time.perf_counter()
    _, codes = post_all(cordon.reports, requests, CONNECTIONS)
    if codes != {202: posts}:
        raise RuntimeError(f"{posts} posts were answered with {dict(codes)}; each should be 202")
    cordon.wait_counted(before + len(made), COUNT_SECONDS_MAX)
    return len(made), time.perf_counter() - began
