"""The fleet's state at 8.5 million devices: bytes a device, peak while it grows, and what a report costs.

The state is built as it is in service, by records of the log through the grouping stage, with four watched products on
each device. Memory is what the process really holds (resident pages), less what it held before.
"""

import gc
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from deploy.bench.figures import Figure, at_most, printed
from ingest.activity import ActivityBatch, Texts
from ingest.events import RolloutNotice, Tick, encoder
from ingest.grouping.stage import GroupingSettings, GroupingStage
from ingest.log.interface import Record, TopicPartition
from ingest.metrics import Metrics
from ingest.rollouts import rollout_id
from ingest.topics import Topics

SMALL, LARGE = 85_000, 8_500_000
PARTITIONS = 8
BATCH = 4000
START_MS = 1_721_361_600_000
PRODUCTS = tuple((f"vendor-{number}", f"product-{number}", "1.0") for number in range(4))
PROBE_REPORTS = 400_000


class Feeder:
    """Makes activity records of random devices, cheaply: what is measured is the stage."""

    def __init__(self, devices: int) -> None:
        """Draw the pseudonyms of `devices` devices, by partition."""
        keys = np.random.default_rng(7).integers(1, 2**63, devices, dtype=np.uint64)
        keys = np.unique(keys)
        part = (keys >> np.uint64(32)) % np.uint64(PARTITIONS)
        self.by_partition = [keys[part == number] for number in range(PARTITIONS)]
        self._random = np.random.default_rng(8)
        self._seq = 0

    def record(self, keys: "np.typing.NDArray[np.uint64]", at_ms: int, versions: bool) -> bytes:
        """Return one record with a check-in of each key."""
        n = len(keys)
        self._seq += 1

        def texts(words: list[str]) -> Texts:
            return Texts(words, self._random.integers(0, len(words), n).tolist())

        inventory = {f"{vendor}/{product}": version for vendor, product, version in PRODUCTS}
        return encoder.encode(
            ActivityBatch(
                gateway="gateway-1",
                received_at_ms=at_ms,
                devices=keys.astype(">u8").tobytes().hex(),
                kinds="c" * n,
                seq=[self._seq] * n,
                at_ms=[at_ms] * n,
                boot_at_ms=(at_ms - self._random.integers(0, 10**9, n)).tolist(),
                os_build=texts(["22631.3880", "22621.3880", "19045.4651", "20348.2582"]),
                form_factor=texts(["laptop", "desktop", "server"]),
                model=texts([f"model-{number}" for number in range(200)]),
                ring=texts(["canary", "early", "broad"]),
                site=Texts([""], []),
                tenant=texts([f"tenant-{number}" for number in range(50)]),
                inventories=[inventory] if versions else [],
                listed_at=list(range(n)) if versions else [],
                listed=[0] * n if versions else [],
            )
        )


class Peak:
    """Watches this process's resident memory from a thread."""

    def __init__(self) -> None:
        """Start watching."""
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.bytes = max(self.bytes, resident())

    def stop(self) -> int:
        """Stop watching and return the highest value."""
        self._stop.set()
        self._thread.join()
        return self.bytes


def resident() -> int:
    """Return this process's resident bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def build_stage(watch: bool) -> GroupingStage:
    """Return a grouping stage of all partitions, with four rollouts under watch if asked."""
    settings = GroupingSettings(range(PARTITIONS), 20_000_000, silence_seconds=900, snapshot_seconds=60)
    stage = GroupingStage(Topics("bench", PARTITIONS), settings, Metrics())
    if watch:
        for number in range(PARTITIONS):
            for place, (vendor, product, _) in enumerate(PRODUCTS):
                name = rollout_id(vendor, product, "2.0")
                notice = RolloutNotice(rollout=name, vendor=vendor, product=product, version="2.0", origin_ms=START_MS)
                stage.apply(_source("activity", number), [Record(place, None, encoder.encode(notice), 0)])
    return stage


def _source(word: str, number: int) -> TopicPartition:
    return TopicPartition(Topics("bench", PARTITIONS).name(word), number)


def tick(stage: GroupingStage, at_ms: int, offset: int) -> None:
    """Give every partition a tick on both topics, so that it makes its step."""
    value = encoder.encode(Tick(gateway="gateway-1", at_ms=at_ms))
    for number in range(PARTITIONS):
        for word in ("crashes", "activity"):
            stage.apply(_source(word, number), [Record(offset, None, value, 0)])
    stage.outputs()


def populate(stage: GroupingStage, feeder: Feeder) -> None:
    """Let every device check in once, with its versions."""
    longest = max(map(len, feeder.by_partition))
    offset = 10
    for start in range(0, longest, BATCH):
        for number, keys in enumerate(feeder.by_partition):
            part = keys[start : start + BATCH]
            if len(part):
                record = Record(offset, None, feeder.record(part, START_MS + 1, True), 0)
                stage.apply(_source("activity", number), [record])
        offset += 1
        # One event second a thousand steps: no minute is passed while the fleet grows.
        tick(stage, START_MS + 10 + offset, offset)


def cost_per_report(stage: GroupingStage, feeder: Feeder) -> float:
    """Return the CPU microseconds of one report from a random, known device; the best of several rounds."""
    random = np.random.default_rng(9)
    best, offset, at_ms = float("inf"), 10**6, START_MS + 30_000
    for _ in range(5):
        records = []
        per_partition = PROBE_REPORTS // 5 // PARTITIONS
        for number, keys in enumerate(feeder.by_partition):
            for start in range(0, per_partition, BATCH):
                some = random.choice(keys, min(BATCH, per_partition - start), replace=False)
                records.append((number, feeder.record(some, at_ms, False)))
        gc.collect()
        started = time.process_time()
        for number, value in records:
            stage.apply(_source("activity", number), [Record(offset, None, value, 0)])
            offset += 1
        at_ms += 250
        tick(stage, at_ms, offset)
        best = min(best, (time.process_time() - started) / (per_partition * PARTITIONS))
    return best * 1e6


def child(devices: int) -> dict[str, float]:
    """Build a fleet of `devices` in this process and measure it."""
    feeder = Feeder(devices)
    stage = build_stage(watch=True)
    warm = build_stage(watch=False)
    warm_feeder = Feeder(1000)
    populate(warm, warm_feeder)
    gc.collect()
    before = resident()
    peak = Peak()
    populate(stage, feeder)
    highest = peak.stop()
    gc.collect()
    total = sum(map(len, feeder.by_partition))
    fleets = [partition.population.fleet for partition in stage.partitions.values()]
    return {
        "devices": total,
        "bytes": sum(fleet.nbytes for fleet in fleets) / total,
        "resident": (resident() - before) / total,
        "peak": (highest - before) / total,
        "cost": cost_per_report(stage, feeder),
    }


def _measured(devices: int) -> dict[str, float]:
    """Measure in a fresh process, so that one fleet's memory is not counted as another's."""
    command = [sys.executable, "-m", "deploy.bench.fleet", str(devices)]
    # The command is our own.
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=900)  # noqa: S603
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure() -> list[Figure]:
    """Return the figures of the fleet's state."""
    small, large = _measured(SMALL), _measured(LARGE)
    return [
        at_most("fleet state at 8.5 million devices, allocated", large["bytes"], "bytes/device", 96),
        at_most("the same, resident memory", large["resident"], "bytes/device", 96),
        at_most("peak while it grows, against 96 bytes a device", large["peak"] / 96, "ratio", 1.5),
        printed("cost per report, 85 thousand devices", small["cost"], "us CPU"),
        printed("cost per report, 8.5 million devices", large["cost"], "us CPU"),
        printed("cost per report, 8.5 million against 85 thousand", large["cost"] / small["cost"], "ratio"),
    ]


if __name__ == "__main__":
    print(json.dumps(child(int(sys.argv[1]))))
