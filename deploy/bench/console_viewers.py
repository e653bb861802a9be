"""What a hundred viewers cost: reports counted a second with nobody looking and with all, in turns of one run."""

import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from deploy.bench.console_client import look
from deploy.bench.console_filled import fill, rollout_of
from deploy.bench.figures import Figure, at_least, printed
from deploy.bench.load import post_all, requests_of
from deploy.bench.server import Served, served
from deploy.bench.traffic import Traffic
from ingest.clock import WallClock
from ingest.events import encoder

VIEWERS, TURNS = 100, 10
BATCH, POSTS, WARM_POSTS, CONNECTIONS = 500, 900, 120, 24
DEVICES = 85_000
COUNT_SECONDS_MAX = 300.0
# What the pipeline keeps of its throughput.
KEPT_LEAST = 0.95
# Four rollouts are looked at by themselves; they and others are on the pages of all who look.
LOOKED_AT, MOVING = 4, 8


def measure() -> list[Figure]:
    """Return the figures of viewers."""
    alone = [f"/rollouts/{rollout_of(number % LOOKED_AT)}" for number in range(VIEWERS - 80)]
    pages = ["/"] * 60 + ["/rollouts"] * 20 + alone
    moving = [rollout_of(number) for number in range(MOVING)]
    with tempfile.TemporaryDirectory(prefix="cordon-bench-") as folder:
        home = Path(folder) / "data"
        fill(home)
        with served(home, store=True, device_partitions=8) as cordon:
            context = get_context("spawn")
            mine, theirs = context.Pipe()
            child = context.Process(
                target=look, args=(cordon.streams, cordon.token, pages, moving, theirs), daemon=True
            )
            child.start()
            try:
                return _turns(cordon, mine, child.pid or 0)
            finally:
                child.terminate()
                child.join()


@dataclass(slots=True)
class _Arm:
    """What was measured while nobody looked, or while all did; a value for each turn.

    Attributes:
        rates: reports counted a second.
        costs: seconds of CPU that Cordon's process took for a million reports.
        viewers: of one core, what the process of the viewers took.
        received: bytes that the viewers got in a second.
    """

    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    viewers: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)


def _turns(cordon: Served, viewers: "Connection[object, object]", viewers_pid: int) -> list[Figure]:
    traffic, counted = Traffic(DEVICES, pseudonyms=False), 0
    arms = {False: _Arm(), True: _Arm()}
    load = os.getloadavg()[0]
    counted += _round(cordon, traffic, WARM_POSTS, counted)[0]
    for turn in range(TURNS):
        # Each pair in the other order, so that whatever drifts falls on both.
        for looking in (False, True) if turn % 2 else (True, False):
            viewers.send(looking)
            viewers.recv()
            arm = arms[looking]
            cpu, cpu_viewers = _cpu_seconds(cordon.pid), _cpu_seconds(viewers_pid)
            reports, seconds = _round(cordon, traffic, POSTS, counted)
            counted += reports
            arm.rates.append(reports / seconds)
            arm.costs.append((_cpu_seconds(cordon.pid) - cpu) / reports * 1e6)
            arm.viewers.append((_cpu_seconds(viewers_pid) - cpu_viewers) / seconds)
            if looking:
                viewers.send(False)
                received = viewers.recv()
                assert isinstance(received, int)
                arm.received.append(received / seconds)
    return _figures(arms[False], arms[True], load)


def _figures(alone: _Arm, looked: _Arm, load: float) -> list[Figure]:
    kept = [with_them / without for with_them, without in zip(looked.rates, alone.rates, strict=True)]
    cost = [with_them / without for with_them, without in zip(looked.costs, alone.costs, strict=True)]
    middle = statistics.median
    return [
        at_least(f"throughput kept with {VIEWERS} viewers, median of {TURNS} pairs", middle(kept), "share", KEPT_LEAST),
        printed("the same, by the sums", sum(looked.rates) / sum(alone.rates), "share"),
        printed("the same, lowest quarter of the pairs ends at", statistics.quantiles(kept, n=4)[0], "share"),
        printed("CPU of the process for a report, with viewers to without, median", middle(cost), "ratio"),
        printed("CPU of the process for a million reports, nobody looking", middle(alone.costs), "s"),
        printed(f"the same with {VIEWERS} viewers", middle(looked.costs), "s"),
        printed("reports counted with nobody looking", middle(alone.rates), "reports/s"),
        printed(f"reports counted with {VIEWERS} viewers", middle(looked.rates), "reports/s"),
        printed("CPU of the viewers' own process, which shares the machine", middle(looked.viewers), "cores"),
        printed("sent to the viewers", middle(looked.received) / 1e6, "MB/s"),
        printed("load of the machine before the first turn", load, "processes"),
    ]


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used: what others take of the machine is not in it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _round(cordon: Served, traffic: Traffic, posts: int, before: int) -> tuple[int, float]:
    """Post reports until they are counted; return how many they were, and the seconds."""
    at_ms = WallClock().now_ms() - 1000
    # Made before the time is taken, and kept as bytes only.
    bodies = [encoder.encode(traffic.reports(BATCH, at_ms)) for _ in range(posts)]
    requests = requests_of(cordon.reports, cordon.token, bodies)
    began = time.perf_counter()
    _, codes = post_all(cordon.reports, requests, CONNECTIONS)
    if codes != {202: posts}:
        raise RuntimeError(f"{posts} posts were answered with {dict(codes)}; each should be 202")
    cordon.wait_counted(before + posts * BATCH, COUNT_SECONDS_MAX)
    return posts * BATCH, time.perf_counter() - began
