"""A child process for fault tests: copies a log into a store and kills itself, really, at an ordered point.

Run as `python store_child.py LOG_FOLDER STORE_FOLDER POINT`. POINT is `none` (run to the end), or a moment and a count,
for instance `after-plan:2`, `before-insert:5`, `after-insert:7`, `before-commit:1`, or `milliseconds:40` for a kill by
another thread wherever the sink then is.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingest.clock import WallClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Fence, TopicPartition
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.store.chdb import ChdbStore
from ingest.store.interface import Columns
from ingest.store.migrate import Migrator
from ingest.store.sink import Sink, SinkLimits
from ingest.topics import Topics

TOPICS = Topics(device_partitions=3)
LIMITS = SinkLimits(rows_max=60, read_records_max=2)


class Fuse:
    """Counts moments and kills this process at the ordered one."""

    def __init__(self, point: str) -> None:
        self.moment, _, count = point.partition(":")
        self.left = int(count or 0)

    def at(self, moment: str) -> None:
        if moment == self.moment:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def light(self) -> None:
        """Start the timer, where the order is a time."""
        if self.moment == "milliseconds":
            threading.Thread(target=self._burn, daemon=True).start()

    def _burn(self) -> None:
        time.sleep(self.left / 1000)
        os.kill(os.getpid(), signal.SIGKILL)


class FusedStore(ChdbStore):
    """A store that may kill its process round an insert."""

    fuse: Fuse

    def insert(self, table: str, columns: Columns) -> None:
        if table != "sink_blocks":
            self.fuse.at("before-insert")
        super().insert(table, columns)
        self.fuse.at("after-plan" if table == "sink_blocks" else "after-insert")


class FusedLog(EmbeddedLog):
    """A log that may kill its process before a commit."""

    fuse: Fuse

    def commit(self, group: str, offsets: Mapping[TopicPartition, int], fence: Fence | None = None) -> None:
        self.fuse.at("before-commit")
        super().commit(group, offsets, fence)


def main(log_folder: str, store_folder: str, point: str, fused: type[Any] = FusedStore) -> None:
    """Copy the log into the store that `fused` opens, and die where the point says."""
    fuse = Fuse(point)
    FusedLog.fuse = fused.fuse = Fuse("none")
    log = FusedLog(Path(log_folder), topic_specs(TOPICS), WallClock())
    store = fused(Path(store_folder), "cordon")
    Migrator(store).apply()
    FusedLog.fuse = fused.fuse = fuse
    sink = Sink(log, store, TOPICS, Metrics(), WallClock(), LIMITS)
    fuse.light()
    sink.recover()
    sink.drain()
    store.close()
    log.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
