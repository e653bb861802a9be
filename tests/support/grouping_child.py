"""A child process for a fault test: an Owner groups what lies in an embedded log, until it is killed or through.

Run as `python grouping_child.py DIRECTORY`. It writes a line a step, and `through` at the end. Chunks are of eight rows
and its clock runs a third of a second a look, so that state is written often and a kill falls between chunks.
"""

import os
import sys
from pathlib import Path

from ingest.clock import WallClock
from ingest.grouping import snapshot
from ingest.grouping.stage import GroupingSettings, GroupingStage
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import TopicPartition
from ingest.log.owner import Owner
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics

TOPICS = Topics(device_partitions=2)


class HastyClock:
    """Moves on a third of a second whenever it is looked at."""

    def __init__(self) -> None:
        self._at_ms = 1_700_000_000_000

    def now_ms(self) -> int:
        self._at_ms += 333
        return self._at_ms


def grouping(log: EmbeddedLog) -> Owner:
    """Return a started owner of both partitions."""
    snapshot.CHUNK_ROWS = 8
    settings = GroupingSettings(range(2), 100_000, silence_seconds=900, snapshot_seconds=20)
    stage = GroupingStage(TOPICS, settings, Metrics())
    state = [TopicPartition(TOPICS.name("fleet"), number) for number in range(2)]
    owner = Owner(log, "grouping", "grouping", stage, state, HastyClock(), records_per_read_max=3)
    owner.start()
    stage.generation = owner.fence.epoch
    return owner


def main() -> None:
    """Group until killed or through."""
    log = EmbeddedLog(Path(sys.argv[1]), topic_specs(TOPICS), WallClock())
    owner = grouping(log)
    os.write(1, b"ready\n")
    while owner.step(0):
        os.write(1, b"step\n")
    os.write(1, b"through\n")


if __name__ == "__main__":
    main()
