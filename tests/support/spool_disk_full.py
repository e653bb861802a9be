"""A child process for a fault test: a spool whose files may not grow past a limit while the log behind is away.

The kernel refuses the write (EFBIG), which SQLite sees as it sees a full disk. Run as
`python -m support.spool_disk_full DIRECTORY`.
"""

import random
import resource
import sys
from pathlib import Path

from ingest.events import encoder
from ingest.log.interface import Entry, LogFullError
from ingest.rollouts import Bound, Rollout, rollout_id
from support.spool_rig import NOW_MS, TOPICS, AwayLog, entry, eventually, spooling

LIMIT_BYTES = 3 << 20
ROLLOUT = Rollout(
    rollout=rollout_id("v", "p", "1"),
    vendor="v",
    product="p",
    update_kind="driver",
    version="1",
    origin_ms=NOW_MS,
    bound=Bound.NONE,
)


def main(folder: Path) -> None:
    """Fill the disk, be refused, drain without getting any space, and go on; exit 0 if the spool kept its word."""
    behind, chance = AwayLog(), random.Random(9)
    log = spooling(folder, behind, bytes_max=1 << 40)
    log.append([Entry(TOPICS.name("rollouts"), 0, ROLLOUT.rollout.encode(), encoder.encode(ROLLOUT))])
    behind.unavailable = True
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
    taken: list[bytes] = []
    refusals = 0
    while refusals < 3:
        value = chance.randbytes(20_000)
        try:
            log.append([entry("activity", value)])
            taken.append(value)
        except LogFullError as error:
            refusals += "free its disk" in str(error)
    state = log.state()
    assert state is not None
    assert state.full
    behind.unavailable = False
    eventually(lambda: log.spool.empty, 30)
    seen = list(dict.fromkeys(behind.values("activity")))
    assert [value for value in seen if value in set(taken)] == taken, "everything acknowledged, in order"
    assert log.append([entry("crashes", "after")])
    eventually(lambda: behind.values("crashes") == [b"after"], 30)
    eventually(lambda: not log.spool.untidy, 30)
    assert log.spool.known.read()[0] == [(ROLLOUT, NOW_MS)], "what a start needs is still there"
    # And the same once more, on the same disk.
    behind.unavailable = True
    again = [chance.randbytes(20_000) for _ in range(20)]
    for value in again:
        assert log.append([entry("activity", value)]) == [-1]
    behind.unavailable = False
    eventually(lambda: log.spool.empty, 30)
    assert list(dict.fromkeys(behind.values("activity")))[-20:] == again
    sys.stdout.write(f"acknowledged {len(taken)}\n")
    log.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
