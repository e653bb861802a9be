"""One process owns an embedded log: a lock on a file beside it, released by the kernel when its holder dies.

SQLite would let a second process write; it would give out offsets that the first one's memory does not know of.
"""

import fcntl
import os
from pathlib import Path

from ingest.log.interface import LogError


class DirectoryLock:
    """An exclusive claim on a directory for the life of this object or of the process."""

    def __init__(self, directory: Path) -> None:
        """Take the lock.

        Raises:
            LogError: another process, or another log in this one, holds it.
        """
        self._file = os.open(directory / "log.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            raise LogError(
                f"another Cordon (process {holder}) owns {directory}: use its HTTP endpoint or choose another --data"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the directory up; the file stays, for unlinking it would race with a new owner."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
