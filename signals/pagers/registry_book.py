"""The registry in force: read from its file, read again when that changes.

Handed to the outbox and the sender of a process. Invariant: a file that can't be used never takes effect; the registry
before it stays in force, with an error in the log and in the metric.
"""

import logging
from pathlib import Path

from ingest.metrics import Metrics
from signals.pagers.registry import Registry, RegistryError, load

_LOGGER = logging.getLogger(__name__)


class RegistryBook:
    """Holds the newest registry that could be used; `reload_if_changed` from one thread, `current` from any."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        """Read the file.

        Raises:
            RegistryError: it can't be used: at start there is none before it to keep.
        """
        self.path = path
        self._metrics = metrics
        self._stamp = self._stamped()
        self._registry = load(path)
        self._version = 1
        metrics.set("pager_registry_broken", 0)

    @property
    def current(self) -> Registry:
        """The registry in force."""
        return self._registry

    @property
    def version(self) -> int:
        """Grows with every registry that takes effect."""
        return self._version

    def reload_if_changed(self) -> bool:
        """Read the file again if it changed, and tell whether a new registry is in force."""
        stamp = self._stamped()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._registry = load(self.path)
        except RegistryError as error:
            _LOGGER.error("routes stay as they were: %s", error)
            self._metrics.set("pager_registry_broken", 1)
            return False
        self._metrics.set("pager_registry_broken", 0)
        self._version += 1
        _LOGGER.info("routes were read again: %d routes, %d vendors", len(self._registry.routes),
                     len(self._registry.vendors))  # fmt: skip
        return True

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)
