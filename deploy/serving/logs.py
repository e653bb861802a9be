"""What a process says on stderr: Cordon's own lines, each once, and no library's.

While Kafka is away its client libraries log each refused connection, with stack traces, several times a second, and
each of Cordon's own parts finds the same thing out for itself. One line says it: what does not answer, and what to
check. The invariant: `--verbose` shows everything, and what is not about an absent log is never held back.
"""

import logging
import time
from collections.abc import Callable

from ingest.log.interface import LogUnavailableError

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Clients of the brokers, and Faust, which runs on one of them. What they fail of, our own parts hear and log.
NOISY = ("kafka", "aiokafka", "faust", "mode")
# While it lasts, an outage is told of this often.
OUTAGE_SECONDS = 30.0


class Calm(logging.Filter):
    """Lets through what a person needs to know who did not ask for more.

    It works where lines are written and not by loggers' levels: `cordon topics` reads what the libraries log.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing said."""
        super().__init__()
        self._monotonic = monotonic
        self._told_at: float | None = None
        self._away = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written."""
        if record.name.partition(".")[0] in NOISY:
            return record.levelno >= logging.CRITICAL
        if getattr(record, "log_is_back", False):
            # Of an outage too short to be told of, the end is no news either.
            told, self._away = self._away, False
            return told
        if isinstance(record.args, tuple) and any(isinstance(one, LogUnavailableError) for one in record.args):
            return self._tell_outage()
        return True

    def _tell_outage(self) -> bool:
        now = self._monotonic()
        if self._told_at is not None and now - self._told_at < OUTAGE_SECONDS:
            return False
        self._told_at, self._away = now, True
        return True


def configure(verbose: bool) -> None:
    """Set up logging for this process; only commands do that, never libraries or tests."""
    # A handler of our own: one that is there already (a test's) is another's to filter, and is kept as it is.
    handler = logging.StreamHandler()
    if not verbose:
        handler.addFilter(Calm())
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format=FORMAT, handlers=[handler])
