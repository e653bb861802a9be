"""The pagers of one process: a service for each keyed partition that it owns, and the heartbeat.

Invariant: which partitions are served is somebody else's word, asked again and again; where two processes were told the
same, the fence decides, and the one that lost it waits before it tries again.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import Final

from signals.pagers.heartbeat import Heartbeat
from signals.pagers.service import PagerParts, PagerService

LOOK_SECONDS: Final = 0.5
PAUSE_SECONDS: Final = 5.0

_LOGGER = logging.getLogger(__name__)


class PagerCrew:
    """Serves what is owned, from `start` to `stop`; without parts nobody is paged, without a heartbeat none is sent."""

    def __init__(
        self, parts: PagerParts | None, owned: Callable[[], Collection[int]], heartbeat: Heartbeat | None
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            parts: what services are made of; None where no routes are set.
            owned: the keyed partitions that this process should serve; asked twice a second, from another thread.
            heartbeat: to the dead-man's switch; None where none is set.
        """
        self._parts, self._owned, self._heartbeat = parts, owned, heartbeat
        self._services: dict[int, PagerService] = {}
        self._not_before: dict[int, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pagers", daemon=True)

    def start(self) -> None:
        """Begin."""
        if self._heartbeat is not None:
            self._heartbeat.start()
        if self._parts is not None:
            self._thread.start()

    def stop(self) -> None:
        """End every service after what is under way."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        assert self._parts is not None
        while not self._end.is_set():
            try:
                self._tend(self._parts)
            except Exception:
                _LOGGER.exception("the pagers could not be looked after; the next look tries again")
            self._end.wait(LOOK_SECONDS)
        for service in self._services.values():
            service.ask_to_stop()
        for service in self._services.values():
            service.stop()

    def _tend(self, parts: PagerParts) -> None:
        owned, now = set(self._owned()), time.monotonic()
        for partition, service in list(self._services.items()):
            if partition not in owned:
                service.ask_to_stop()
            if service.ended:
                del self._services[partition]
                self._not_before[partition] = now + PAUSE_SECONDS
        for partition in sorted(owned - self._services.keys()):
            if self._not_before.get(partition, 0.0) <= now:
                service = self._services[partition] = PagerService(parts, partition)
                service.start()
