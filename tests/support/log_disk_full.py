"""A child process for a fault test: its files may not grow past a limit, which is later lifted.

The kernel refuses the write (EFBIG), which SQLite sees as it sees a full disk. Prints what the log answered.
Run as `python log_disk_full.py DIRECTORY`.
"""

import resource
import sys
from pathlib import Path

from ingest.clock import WallClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry, LogUnavailableError, TopicPartition
from ingest.log.specs import TopicSpec

LIMIT_BYTES = 1 << 20
SPECS = (TopicSpec("full.events", 1),)
EVENTS = TopicPartition("full.events", 0)


def main() -> None:
    """Fill up, be refused twice, get space, go on; exit 0 if the log kept its word."""
    log = EmbeddedLog(Path(sys.argv[1]), SPECS, WallClock())
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
    acknowledged: list[int] = []
    refusals = 0
    generator_value = bytes(range(256)) * 2
    while refusals < 2:
        try:
            acknowledged += log.append([Entry("full.events", 0, None, generator_value)] * 50)
        except LogUnavailableError:
            refusals += 1
    assert log.bounds(EVENTS) == (0, len(acknowledged)), "what was refused is not visible"
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    after = log.append([Entry("full.events", 0, None, b"after")])
    assert after == [len(acknowledged)], "the next offset follows the last acknowledged one"
    log.close()
    again = EmbeddedLog(Path(sys.argv[1]), SPECS, WallClock())
    records = again.read(EVENTS, 0, 1_000_000, 1 << 30)
    assert [record.offset for record in records] == acknowledged + after
    again.close()
    sys.stdout.write(f"acknowledged {len(acknowledged)}\n")


if __name__ == "__main__":
    main()
