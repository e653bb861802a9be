"""Start of `cordon up` to `ready`: with an empty folder, and with the state of 8.5 million devices in the log."""

import tempfile
import time
from pathlib import Path

from deploy.bench.figures import Figure, at_least, at_most, printed
from deploy.bench.fleet import LARGE, PARTITIONS, START_MS, Feeder, build_stage, populate
from deploy.bench.server import Served, served
from ingest.clock import WallClock
from ingest.events import Tick, encoder
from ingest.grouping.stage import GroupingStage
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry
from ingest.log.specs import topic_specs
from ingest.topics import Topics

APPEND_ENTRIES = 200
KNOWN_SECONDS_MAX = 30.0


def write_state(folder: Path, stage: GroupingStage) -> int:
    """Write the stage's whole state into a live lane's log in `folder`; return its bytes.

    The state names how far it has read, so the device topics get as many records: ticks, which it will not read again.
    """
    topics = Topics(device_partitions=PARTITIONS)
    log = EmbeddedLog(folder / "log", topic_specs(topics), WallClock())
    size = 0
    value = encoder.encode(Tick(gateway="gateway-1", at_ms=START_MS))
    for number, partition in stage.partitions.items():
        for word, offset in partition.place().offsets.items():
            log.append([Entry(topics.name(word), number, None, value)] * offset)
    batch: list[Entry] = []
    for entry in stage.whole():
        batch.append(entry._replace(topic=topics.name("fleet")))
        size += len(entry.value or b"")
        if len(batch) >= APPEND_ENTRIES:
            log.append(batch)
            batch = []
    log.append(batch)
    log.close()
    return size


def known_devices(cordon: Served) -> float:
    """Return how many devices grouping knows, once its first steps have said so."""
    deadline = time.monotonic() + KNOWN_SECONDS_MAX
    devices = 0.0
    while time.monotonic() < deadline and devices < 0.99 * LARGE:
        time.sleep(0.25)
        devices = sum(cordon.metric(f'cordon_fleet_devices{{partition="{n}"}}') for n in range(PARTITIONS))
    return devices


def measure() -> list[Figure]:
    """Return the start-up figures."""
    with served(store=True) as cordon:
        empty = cordon.ready_seconds
    with tempfile.TemporaryDirectory(prefix="cordon-bench-") as folder:
        stage = build_stage(watch=True)
        populate(stage, Feeder(LARGE))
        size = write_state(Path(folder), stage)
        del stage
        with served(Path(folder), store=True, devices_max=20_000_000) as cordon:
            full = cordon.ready_seconds
            devices = known_devices(cordon)
    return [
        at_most("cordon up to ready, empty", empty, "s", 5),
        at_most("cordon up to ready, 8.5 million devices", full, "s", 10),
        printed("state of 8.5 million devices in the log", size / 1e6, "MB"),
        at_least("devices known after that start", devices, "devices", 0.99 * LARGE),
    ]
