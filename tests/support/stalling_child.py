"""A child process whose event loop is blocked after a while, or is not; a watchdog watches it.

Run as `python stalling_child.py SECONDS block|hold|busy`. It says `running` when the watchdog looks.
"""

import asyncio
import os
import re
import sys
import time

from deploy.workers.watchdog import Heartbeat, Watchdog
from ingest.metrics import Metrics


async def main(stall_seconds: float, how: str) -> None:
    """Run for a while and then block the loop or the whole interpreter, or go on and end in order."""
    heartbeat = Heartbeat()
    heartbeat.start()
    watchdog = Watchdog(stall_seconds, Metrics())
    watchdog.watch(lambda: [heartbeat.standing()])
    watchdog.start()
    os.write(1, b"running\n")
    if how == "hold":
        await asyncio.sleep(0.5)
        re.match(r"(a*)*b", "a" * 200)  # keeps the interpreter's lock, so that no thread of Python's can run
    if how == "block":
        await asyncio.sleep(0.2)
        time.sleep(60)  # noqa: ASYNC251 - what the watchdog is there for
    await asyncio.to_thread(time.sleep, 3 * stall_seconds)
    heartbeat.stop()
    watchdog.stop()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), sys.argv[2]))
