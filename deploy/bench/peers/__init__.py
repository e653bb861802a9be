"""The same counting job as other stream processors' users write it, for the ratios of `make bench-distributed`.

Each module is a program: `python -m deploy.bench.peers.faust_idiom BROKER TOPIC RECORDS`. It reads that many records
from the beginning of a topic of 16 partitions, counts them by update version and kind of report in windows of a minute
of event time, and prints a `Counted` as its last line.

The job: each record is one report as a flat JSON object, with the version it speaks of beside its own fields, keyed by
version and kind, and its event time as the record's own. So neither program has to repartition or to look for a time,
which spares both what a pipeline on raw reports could not do without.
"""

import os
from collections.abc import Mapping

import msgspec

PARTITIONS = 16
WINDOW_SECONDS = 60
# A record behind the reports in each partition, ten minutes on, that closes every window.
CLOSING = "closing"


class Counted(msgspec.Struct, kw_only=True):
    """What a peer found.

    Attributes:
        version: of the library.
        seconds: from the first report consumed to the last one counted; the start of the process is not in it.
        counts: reports by `version|kind` and the minute of event time in milliseconds, as `[key, minute, count]`.
    """

    version: str
    seconds: float
    counts: list[tuple[str, int, int]]


def tell(version: str, seconds: float, counts: Mapping[tuple[str, int], int]) -> None:
    """Print what was found as one line."""
    rows = [(key, minute_ms, count) for (key, minute_ms), count in sorted(counts.items())]
    # Not through sys.stdout, which Faust turns into its log.
    os.write(1, b"\n" + msgspec.json.encode(Counted(version=version, seconds=seconds, counts=rows)) + b"\n")
