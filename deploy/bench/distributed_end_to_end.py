"""Gateway to Kafka to workers to verdict: what rate is sustained for a minute, and how soon a kill comes at half of it.

`cordon up --distributed` with two workers, its broker, the load generator and the subscriber share this machine. The
store is off: there is no ClickHouse server here. Memory is that of all its processes and the broker, sampled each
second; bounded means that the last quarter of the time holds hardly more than the quarter before.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.bench.distributed_lane import BenchLane, Distributed, Tail, cpu_seconds, memory_bytes, metric_at
from deploy.bench.distributed_load import Rounds, post_at
from deploy.bench.figures import Figure, at_least, at_most, printed
from deploy.bench.latency import EXPOSED, Crowd, Trial
from deploy.kafka.broker import LocalKafka
from ingest.clock import WallClock
from ingest.endpoint.post import post_reports
from ingest.progress import progress_decoder

# A little above the bound: the seconds until the last report is judged count too.
BOUND, RATE, SECONDS = 50_000.0, 54_000.0, 60.0
DEVICES, WARM_SECONDS = 200_000, 10.0
MEMORY_GROWTH_MAX = 1.05
DRAIN_SECONDS_MAX = 60.0
LAG_END_SECONDS_MAX = 5.0
TRIALS, TRIALS_AT_ONCE = 100, 20
SETTLE_SECONDS, DECIDED_SECONDS = 3.0, 6.0
KILL_SECONDS_MAX = 2.0


class Stages:
    """How far the stages behind the gateway have come, by their own words."""

    def __init__(self, lane: BenchLane) -> None:
        """Begin to listen."""
        self._tail = Tail(lane.log, lane.source("progress", 0))
        self._reached: dict[str, int] = {}
        self._expected = {f"detection/{number}" for number in range(lane.topics.keyed_partitions)}

    def reached_ms(self) -> int:
        """Return the time before which everything received has been through to the verdicts; 0 while it is not told."""
        for record in self._tail.new():
            word = progress_decoder.decode(record.value or b"{}")
            if word.owner in self._expected:
                self._reached[word.owner] = word.reached_ms
        return min(self._reached.values()) if self._reached.keys() == self._expected else 0

    def wait_reached(self, at_ms: int, seconds: float) -> None:
        """Return when everything received before `at_ms` has been through.

        Raises:
            RuntimeError: it has not within the time.
        """
        deadline = time.monotonic() + seconds
        while self.reached_ms() < at_ms:
            if time.monotonic() > deadline:
                late = (at_ms - self.reached_ms()) / 1000
                raise RuntimeError(f"the stages are {late:.1f} s behind after {seconds:.0f} s")
            time.sleep(0.2)


class Samples:
    """Memory and lag, each second, from a thread of its own."""

    def __init__(self, pids: Callable[[], Sequence[int]], stages: Stages) -> None:
        """Sample these processes."""
        self.memory: list[int] = []
        self.lag_seconds: list[float] = []
        self._pids, self._stages = pids, stages
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.wait(1.0):
            self.memory.append(sum(map(memory_bytes, self._pids())))
            reached_ms = self._stages.reached_ms()
            if reached_ms:
                self.lag_seconds.append((WallClock().now_ms() - reached_ms) / 1000)

    def __enter__(self) -> "Samples":
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join()

    @property
    def growth(self) -> float:
        """Memory of the last quarter against that of the one before."""
        quarter = len(self.memory) // 4
        return statistics.mean(self.memory[-quarter:]) / statistics.mean(self.memory[-2 * quarter : -quarter])


def accepted(cordon: Distributed) -> float:
    """Return how many reports all workers have counted."""
    urls = [url for name, url in cordon.urls.items() if name.startswith("worker")]
    return sum(metric_at(url, 'cordon_grouped_total{outcome="accepted"}') for url in urls)


def sustained(lane: BenchLane, cordon: Distributed, kafka: LocalKafka) -> list[Figure]:
    """Return the figures of a minute at full rate.

    Raises:
        RuntimeError: a post was refused, a report was not counted, or the stages did not get there.
    """
    stages, rounds = Stages(lane), Rounds(cordon.reports, cordon.token, DEVICES)
    codes = post_at(cordon.reports, rounds, RATE / 2, WARM_SECONDS)
    stages.wait_reached(WallClock().now_ms(), DRAIN_SECONDS_MAX)
    warm = rounds.posted
    pids = [*cordon.children(), kafka.nodes[0].pid]
    used = sum(map(cpu_seconds, pids)) + time.process_time()
    with Samples(lambda: pids, stages) as samples:
        began = time.monotonic()
        codes += post_at(cordon.reports, rounds, RATE, SECONDS)
        load_ended = time.monotonic()
        stages.wait_reached(WallClock().now_ms(), DRAIN_SECONDS_MAX)
        all_judged = time.monotonic()
    used = sum(map(cpu_seconds, pids)) + time.process_time() - used
    if set(codes) != {202} or accepted(cordon) != rounds.posted:
        raise RuntimeError(f"answers {codes}, and {accepted(cordon):.0f} of {rounds.posted} reports were counted")
    reports = rounds.posted - warm
    names = [*cordon.children().items(), (kafka.nodes[0].pid, "broker")]
    held = [f"{name} {memory_bytes(pid) / 1e6:.0f}" for pid, name in names]
    print(f"memory in MB: {', '.join(held)}", file=sys.stderr)
    return [
        at_least(
            "gateway to verdict, a minute, until all is judged", reports / (all_judged - began), "reports/s", BOUND
        ),
        at_most("behind when the load ends", all_judged - load_ended, "s", LAG_END_SECONDS_MAX),
        # What the machine could do with nobody else on it: two cores give 2,000,000 us a second.
        printed("processor time of everything, broker and load too", used / reports * 1e6, "us/report"),
        printed("behind at worst during that minute", max(samples.lag_seconds, default=0.0), "s"),
        at_most("memory, last quarter against the one before", samples.growth, "ratio", MEMORY_GROWTH_MAX),
        printed("memory of all processes and the broker", samples.memory[-1] / 1e6, "MB"),
    ]


@contextmanager
def other_traffic(cordon: Distributed, reports_per_second: float) -> Iterator[Callable[[], float]]:
    """Post other reports from a process of its own; yields what tells the reports a second so far."""
    name = "deploy.bench.distributed_load"
    command = [sys.executable, "-m", name, cordon.reports, cordon.token, str(DEVICES), str(reports_per_second), "5000"]
    # The command is our own.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        lines = process.stdout
        lines.readline()
        accepted: list[int] = []
        reader = threading.Thread(target=lambda: accepted.extend(map(int, lines)), daemon=True)
        began = time.perf_counter()
        reader.start()
        try:
            yield lambda: sum(accepted) / (time.perf_counter() - began)
        finally:
            process.kill()
            reader.join()


def prepare(cordon: Distributed, trials: Sequence[Trial], crashes: int) -> None:
    """Let all devices check in, offer the updates, and post all crashes but the deciding ones."""
    for step in (Trial.check_ins, Trial.offers):
        for trial in trials:
            post_reports(cordon.reports, cordon.token, step(trial, WallClock().now_ms()))
        time.sleep(SETTLE_SECONDS)
    for trial in trials:
        post_reports(cordon.reports, cordon.token, [trial.crash(WallClock().now_ms()) for _ in range(crashes)])
    time.sleep(SETTLE_SECONDS)


def decide(cordon: Distributed, crowd: Crowd, trial: Trial) -> float:
    """Post crashes until the rollout is killed; return the seconds from the deciding post to the subscriber.

    Raises:
        RuntimeError: it was killed before, or not at all.
    """
    if any(trial.rollout in listener.kills for listener in crowd.listeners):
        raise RuntimeError(f"{trial.rollout} was killed by fewer crashes than the first trial")
    while trial.crashed < EXPOSED:
        crash = trial.crash(WallClock().now_ms())
        posted = time.perf_counter()
        post_reports(cordon.reports, cordon.token, [crash])
        had = crowd.wait(trial.rollout, DECIDED_SECONDS)
        if had is not None:
            return had - posted
    raise RuntimeError(f"{trial.rollout} was not killed by {trial.crashed} crashes")


def kill_latency(cordon: Distributed) -> list[Figure]:
    """Return the figures of kills at half the rate."""
    trials = [Trial(number) for number in range(1 + TRIALS)]
    crowd = Crowd(cordon, 1)
    prepare(cordon, trials[:1], 0)
    decide(cordon, crowd, trials[0])
    crashes = trials[0].crashed - 1
    seconds: list[float] = []
    with other_traffic(cordon, RATE / 2) as rate:
        for start in range(1, len(trials), TRIALS_AT_ONCE):
            some = trials[start : start + TRIALS_AT_ONCE]
            prepare(cordon, some, crashes)
            seconds.extend(decide(cordon, crowd, trial) for trial in some)
        posted = rate()
    crowd.close()
    seconds.sort()
    p99 = seconds[-(-99 * len(seconds) // 100) - 1]
    return [
        at_most("deciding report to a subscriber at half the rate, p99", p99, "s", KILL_SECONDS_MAX),
        printed("the same, median", statistics.median(seconds), "s"),
        at_least("other traffic meanwhile", posted, "reports/s", BOUND / 2),
        printed("crashes that decided", crashes + 1, "crashes"),
    ]


def measure(kafka: LocalKafka) -> list[Figure]:
    """Return the figures of the whole way."""
    with (
        tempfile.TemporaryDirectory(prefix="cordon-bench-") as folder,
        BenchLane(kafka, Path(folder), lane="live") as lane,
        lane.cordon(discovered_per_tenant_max=10_000, tenant_reports_per_second_max=1_000_000) as cordon,
    ):
        return [*sustained(lane, cordon, kafka), *kill_latency(cordon)]
