"""The heartbeat to an outside dead-man's switch: while Cordon sees, somebody outside hears so; else they page.

A silent Cordon can't page that it is silent. Invariant: nothing is sent unless Cordon sees at that moment; an error of
the other side is counted and tried again with the next beat, and stops nothing.
"""

import logging
import threading
from collections.abc import Callable

import httpx2

from ingest.metrics import Metrics
from ingest.sight import SightSource

TIMEOUT_SECONDS = 10.0
_LOGGER = logging.getLogger(__name__)


class Heartbeat:
    """Posts to one address at every interval; a thread of its own between `start` and `stop`."""

    def __init__(
        self,
        url: str,
        seconds: float,
        sight: SightSource,
        metrics: Metrics,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Take where to and how often."""
        self._url, self._seconds, self._sight, self._metrics = url, seconds, sight, metrics
        self._http = httpx2.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False, transport=transport)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deadman", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; the other side pages after its own time."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._http.close()

    def beat(self) -> str:
        """Send one beat if Cordon sees; returns the closed word of what became of it."""
        result = self._beat()
        self._metrics.count("deadman_beats_total", result=result)
        return result

    def _beat(self) -> str:
        if not self._sight.sight().seeing:
            return "withheld"
        try:
            response = self._http.post(self._url)
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            _LOGGER.warning("the dead-man's switch could not be reached: %s", error)
            return "failed"
        if not response.is_success:
            _LOGGER.warning("the dead-man's switch answered %d", response.status_code)
            return "failed"
        return "sent"

    def _run(self) -> None:
        self._guarded(self.beat)
        while not self._stop.wait(self._seconds):
            self._guarded(self.beat)

    def _guarded(self, beat: Callable[[], str]) -> None:
        try:
            beat()
        except Exception:
            _LOGGER.exception("a heartbeat failed; the next one is tried")
