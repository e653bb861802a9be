"""A child process for a fault test: one thread appends, an Owner counts, until it is killed.

Run as `python log_counter.py DIRECTORY`.
"""

import itertools
import os
import sys
import threading
from pathlib import Path

from ingest.clock import WallClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry
from ingest.log.owner import Owner
from support.counting_stage import SPECS, STATE, CountingStage


def _feed(log: EmbeddedLog) -> None:
    for turn in itertools.count():
        log.append([Entry("in", number % 2, None, b"%d" % (number % 10)) for number in range(turn, turn + 7)])


def main() -> None:
    """Feed and count until killed."""
    clock = WallClock()
    log = EmbeddedLog(Path(sys.argv[1]), SPECS, clock)
    owner = Owner(log, "count/0", "count", CountingStage(), STATE, clock, records_per_read_max=10, commit_seconds=0.02)
    owner.start()
    os.write(1, b"ready\n")
    threading.Thread(target=_feed, args=(log,), daemon=True).start()
    while True:
        owner.step(0.01)


if __name__ == "__main__":
    main()
