"""A worker is killed: how long until its partitions speak again, and how long a kill takes meanwhile.

Recovery is measured with a million devices of state, and with every chunk of it in the log some twenty times: the
cleaner leaves a compacted topic alone while its newest segment is open (ten minutes, 32 MB), and at the setting's one
round of chunks a minute that is ten rounds and as much again that is not cleaned yet. It runs from the SIGKILL, with
another worker started at once (as a supervisor does), until every partition has said a step that begins after it.
"""

import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.bench.distributed_end_to_end import Stages, prepare
from deploy.bench.distributed_lane import BenchLane, Distributed, Tail
from deploy.bench.figures import Figure, at_least, at_most, printed
from deploy.bench.latency import Crowd, Trial
from deploy.bench.pipeline import rollout_entries
from deploy.bench.traffic import Traffic, entries_of
from deploy.kafka.broker import LocalKafka
from ingest.clock import WallClock
from ingest.endpoint.post import post_reports
from ingest.events import Tick, encoder
from ingest.log.interface import Entry
from ingest.progress import progress_decoder
from ingest.windows import step_decoder

DEVICES, STEP_DEVICES = 1_000_000, 50_000
ROUND_SECONDS, ROUNDS = 2, 20
RECOVERY_SECONDS_MAX = 20.0
WAIT_SECONDS_MAX = 180.0
CRASHES = 24
KILL_SECONDS = 60.0


class Partitions:
    """What the partitions of a lane have said."""

    def __init__(self, lane: BenchLane) -> None:
        """Begin with nothing."""
        self._tail = Tail(lane.log, lane.source("cohorts", 0))
        self.reached: dict[int, int] = dict.fromkeys(range(lane.topics.device_partitions), 0)

    def wait(self, at_ms: int, seconds: float = WAIT_SECONDS_MAX) -> None:
        """Return when every partition has reached `at_ms`.

        Raises:
            RuntimeError: one has not, within the time.
        """
        deadline = time.monotonic() + seconds
        while min(self.reached.values()) < at_ms:
            if time.monotonic() > deadline:
                raise RuntimeError(f"partitions stand at {self.reached}, {at_ms} is wanted, after {seconds:.0f} s")
            time.sleep(0.05)
            for record in self._tail.new():
                step = step_decoder.decode(record.value or b"")
                self.reached[step.partition] = max(self.reached[step.partition], step.watermark_ms)


@contextmanager
def ticking(lane: BenchLane) -> Iterator[None]:
    """Write the present time as a gateway's tick to every device partition, four times a second."""
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.25):
            value = encoder.encode(Tick(gateway="gateway-1", at_ms=WallClock().now_ms()))
            lane.log.append(
                [
                    Entry(lane.topics.name(word), partition, None, value)
                    for word in ("activity", "crashes")
                    for partition in range(lane.topics.device_partitions)
                ]
            )

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def fill(lane: BenchLane) -> None:
    """Let every device report once, now."""
    traffic, begin_ms = Traffic(DEVICES), WallClock().now_ms()
    lane.log.append(rollout_entries(lane.topics))
    for step in range(DEVICES // STEP_DEVICES):
        at_ms = begin_ms + step
        lane.log.append(entries_of(lane.topics, "gateway-1", traffic.reports(STEP_DEVICES, at_ms), at_ms, at_ms))


def chunk_rounds(lane: BenchLane) -> float:
    """Return how many entries of state the log holds for each one that counts."""
    keys: Counter[bytes] = Counter()
    for partition in range(lane.topics.device_partitions):
        keys.update(record.key or b"" for record in Tail(lane.log, lane.source("fleet", partition)).new())
    chunks = {key: count for key, count in keys.items() if b"/chunk/" in key}
    return sum(chunks.values()) / len(chunks)


def recovery(kafka: LocalKafka) -> list[Figure]:
    """Return the figures of a worker that is killed with a million devices."""
    with (
        tempfile.TemporaryDirectory(prefix="cordon-bench-") as folder,
        BenchLane(kafka, Path(folder), snapshot_seconds=ROUND_SECONDS) as lane,
    ):
        fill(lane)
        partitions = Partitions(lane)
        with ticking(lane):
            with lane.grouping_worker("worker-1") as worker:
                partitions.wait(WallClock().now_ms())
                time.sleep(ROUND_SECONDS * (ROUNDS + 1))
                worker.kill()
                worker.wait()
                killed = time.monotonic()
                killed_ms = WallClock().now_ms()
            with lane.grouping_worker("worker-2", snapshot_seconds=60):
                partitions.wait(killed_ms)
                seconds = time.monotonic() - killed
        rounds = chunk_rounds(lane)
    return [
        at_most(
            "SIGKILL of a worker with a million devices until all partitions speak", seconds, "s", RECOVERY_SECONDS_MAX
        ),
        at_least("times that each chunk of its state was in the log", rounds, "times", ROUNDS * 0.9),
    ]


def owners(lane: BenchLane) -> dict[str, str]:
    """Return the worker of each share, by the newest words."""
    found: dict[str, tuple[int, str]] = {}
    for record in Tail(lane.log, lane.source("progress", 0)).new():
        word = progress_decoder.decode(record.value or b"{}")
        found[word.owner] = max(found.get(word.owner, (-1, "")), (word.generation, word.worker))
    return {owner: worker for owner, (_, worker) in found.items()}


def pid_of(cordon: Distributed, worker: str) -> int:
    """Return the process id of a worker by its name.

    Raises:
        RuntimeError: there is none.
    """
    for pid in cordon.children():
        if f"CORDON_WORKER_NAME={worker}\0" in Path(f"/proc/{pid}/environ").read_text() + "\0":
            return pid
    raise RuntimeError(f"no process of {worker} among {cordon.children()}")


def kill_meanwhile(lane: BenchLane, cordon: Distributed, crowd: Crowd, number: int, judges: bool) -> float:
    """SIGKILL a worker, post a rollout's crashes at once, and return the seconds until the rollout is killed.

    Args:
        lane: of the run.
        cordon: the run.
        crowd: who waits for the event.
        number: of the trial.
        judges: whether it is the worker that has the detectors too.

    Raises:
        RuntimeError: the rollout was not killed.
    """
    trial = Trial(number)
    prepare(cordon, [trial], 0)
    dealt = owners(lane)
    judge = dealt["detection/0"]
    victim = judge if judges else next(w for o, w in dealt.items() if o.startswith("grouping/") and w != judge)
    crashes = [trial.crash(WallClock().now_ms()) for _ in range(CRASHES)]
    os.kill(pid_of(cordon, victim), signal.SIGKILL)
    began = time.perf_counter()
    post_reports(cordon.reports, cordon.token, crashes)
    had = crowd.wait(trial.rollout, KILL_SECONDS)
    if had is None:
        raise RuntimeError(f"{trial.rollout} was not killed within {KILL_SECONDS:.0f} s of the SIGKILL of {victim}")
    return had - began


def dead_worker(kafka: LocalKafka) -> list[Figure]:
    """Return the time to a kill while a worker is dead."""
    with (
        tempfile.TemporaryDirectory(prefix="cordon-bench-") as folder,
        BenchLane(kafka, Path(folder), lane="live") as lane,
        lane.cordon(workers=2, discovered_per_tenant_max=10_000) as cordon,
    ):
        crowd, stages = Crowd(cordon, 1), Stages(lane)
        seconds = []
        for number, judges in enumerate((False, True)):
            stages.wait_reached(WallClock().now_ms(), KILL_SECONDS)
            seconds.append(kill_meanwhile(lane, cordon, crowd, number, judges))
            stages.wait_reached(WallClock().now_ms(), KILL_SECONDS)
        crowd.close()
    return [
        printed("time to kill, half the device partitions without a worker", seconds[0], "s"),
        printed("the same, the detectors without one too", seconds[1], "s"),
    ]


def measure(kafka: LocalKafka) -> list[Figure]:
    """Return the figures of workers that are killed."""
    return [*dead_worker(kafka), *recovery(kafka)]
