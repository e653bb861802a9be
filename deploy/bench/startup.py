"""Start of `cordon up` to `ready`: with an empty folder, and with the state of 8.5 million devices in the log."""

import tempfile
from pathlib import Path

from deploy.bench.figures import Figure, at_most, printed
from deploy.bench.fleet import LARGE, PARTITIONS, Feeder, build_stage, populate
from deploy.bench.server import served
from ingest.clock import WallClock
from ingest.grouping.stage import GroupingStage
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry
from ingest.log.specs import topic_specs
from ingest.topics import Topics

APPEND_ENTRIES = 200


def write_state(folder: Path, stage: GroupingStage) -> int:
    """Write the stage's whole state into a live lane's log in `folder`; return its bytes."""
    topics = Topics(device_partitions=PARTITIONS)
    log = EmbeddedLog(folder / "log", topic_specs(topics), WallClock())
    size = 0
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
            devices = sum(cordon.metric(f'cordon_fleet_devices{{partition="{n}"}}') for n in range(PARTITIONS))
    return [
        at_most("cordon up to ready, empty", empty, "s", 5),
        at_most("cordon up to ready, 8.5 million devices", full, "s", 10),
        printed("state of 8.5 million devices in the log", size / 1e6, "MB"),
        printed("devices known after that start", devices, "devices"),
    ]
