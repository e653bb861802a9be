"""A child process for fault tests: appends numbered records from several threads until it is killed.

Each acknowledged append is printed as one line, `writer number offsets...`, after the log said it is durable. A value
names its writer and number and carries a checksum over a body, so a torn or foreign value shows.

Run as `python log_writer.py DIRECTORY WRITERS FIRST_NUMBER`.
"""

import os
import random
import sys
import threading
import zlib
from pathlib import Path

from ingest.clock import WallClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import Entry
from ingest.log.specs import TopicSpec

SPECS = (
    TopicSpec("fault.events", 3),
    TopicSpec("fault.state", 1, compacted=True),
)
PARTITIONS = 3


def value_of(writer: int, number: int) -> bytes:
    """Return a record's value; its size varies from tens of bytes to tens of thousands."""
    generator = random.Random(writer * 1_000_003 + number)
    body = b"%d %d " % (writer, number) + generator.randbytes(generator.choice((10, 600, 30_000)))
    return b"%08x " % zlib.crc32(body) + body


def parse(value: bytes) -> tuple[int, int]:
    """Return writer and number of a value.

    Raises:
        ValueError: the value is torn or was never written.
    """
    checksum, body = value[:8], value[9:]
    if int(checksum, 16) != zlib.crc32(body):
        raise ValueError("torn value")
    writer, number = body.split(b" ", 2)[:2]
    if value != value_of(int(writer), int(number)):
        raise ValueError("foreign value")
    return int(writer), int(number)


def _write(log: EmbeddedLog, writer: int, first: int) -> None:
    number = first
    while True:
        value = value_of(writer, number)
        entries = [Entry("fault.events", partition, None, value) for partition in range(PARTITIONS)]
        entries.append(Entry("fault.state", 0, b"%d" % (number % 10), value))
        offsets = log.append(entries)
        line = f"{writer} {number} {' '.join(map(str, offsets))}\n"
        # One write to the pipe, so that a kill cannot leave half an acknowledgement of another thread.
        os.write(1, line.encode())
        number += 1


def main() -> None:
    """Write until killed."""
    directory, writers, first = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    log = EmbeddedLog(directory, SPECS, WallClock())
    os.write(1, b"ready\n")
    for writer in range(writers):
        threading.Thread(target=_write, args=(log, writer, first), daemon=True).start()
    while True:
        log.maintain()


if __name__ == "__main__":
    main()
