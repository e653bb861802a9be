"""Python's cycle collector, kept from looking again and again at all that a process holds.

What a stage holds of ten thousand rollouts lives for hours and is freed by counting references. A full collection takes
seconds to find that out, and a deciding report waits for it. So what has grown is set aside each half minute
(`gc.freeze`), and looked through as a whole once a day: a cycle that was set aside before it became garbage, such as
the remains of a connection, is kept until then at the longest.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

ASIDE_SECONDS: Final = 30.0
WHOLE_SECONDS: Final = 86_400.0
# New objects before the young, and times before the next older, are looked through: some milliseconds each.
THRESHOLDS: Final = (10_000, 10, 100)

logger = logging.getLogger(__name__)


def set_aside() -> None:
    """Free the cycles among what is new, and look no more at what is left of it."""
    gc.collect(1)
    gc.freeze()


def collect_whole() -> float:
    """Look through everything, set aside or not; return how long that took, in seconds."""
    began = time.perf_counter()
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    return time.perf_counter() - began


@contextmanager
def sparing_collections(
    aside_seconds: float = ASIDE_SECONDS,
    whole_seconds: float = WHOLE_SECONDS,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Set aside what a process holds while the block lasts; the collector is as it was before, afterwards."""
    before = gc.get_threshold()
    stopping = threading.Event()

    def keep() -> None:
        whole_at = monotonic() + whole_seconds
        while not stopping.wait(aside_seconds):
            if monotonic() >= whole_at:
                logger.info("looked through all objects for garbage in %.2f s", collect_whole())
                whole_at = monotonic() + whole_seconds
            else:
                set_aside()

    collect_whole()
    gc.set_threshold(*THRESHOLDS)
    thread = threading.Thread(target=keep, name="garbage", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        gc.set_threshold(*before)
        gc.unfreeze()
