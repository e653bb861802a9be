"""The alerts job on many machines: in the worker whose sink has the first share of the store, in a thread of its own.

It asks ClickHouse by a connection of its own, which only reads, so that a long question holds no insert up. The
invariant: where shares are dealt anew the job moves with the first one, and the fence ends whoever has not noticed.
"""

import threading
from collections.abc import Callable
from typing import Final

from deploy.alerts.job import AlertsJob
from deploy.alerts.source import StoreRows
from ingest.log.interface import Log
from ingest.metrics import Metrics
from ingest.settings import Settings
from ingest.store.interface import Store, database_of
from ingest.store.native import READER_SETTINGS, NativeStore
from ingest.store.server import server_of
from ingest.topics import Topics

# A question to the store is bounded by its settings; what is not through by then ends with the process.
STOP_SECONDS: Final = 20.0


class AlertsService:
    """Runs a job in a daemon thread from `start` to `stop`, and closes its connection."""

    def __init__(self, job: AlertsJob, store: Store) -> None:
        """Take the job and the connection that it asks."""
        self._job, self._store = job, store
        self._thread = threading.Thread(target=job.run, name="alerts", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End between two hours; bounded."""
        self._job.stop()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        self._store.close()


def alerts_service(
    log: Log, topics: Topics, settings: Settings, metrics: Metrics, may_run: Callable[[], bool]
) -> AlertsService:
    """Return the job of this worker; nothing connects before it starts.

    Args:
        log: where alerts and state lie.
        topics: of the lane.
        settings: of this process.
        metrics: of this process.
        may_run: whether this worker has the first share now.

    Raises:
        SettingsError: the password file can't be read.
    """
    store = NativeStore(server_of(settings), database_of(settings.lane), settings=READER_SETTINGS, create=False)
    job = AlertsJob(log, topics, StoreRows(store), metrics, every_seconds=settings.alerts_seconds, may_run=may_run)
    return AlertsService(job, store)
