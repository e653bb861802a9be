"""Every log of this repository that needs no server, held to the contract."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.clock import DrivenClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.memory import MemoryLog
from support.log_contract import SPECS, START_MS, TOMBSTONE_MS, Backend, Capabilities, LogContract


class TestMemoryLog(LogContract):
    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        clock = DrivenClock(START_MS)
        backend = Backend(clock, Capabilities(durable=False), lambda: MemoryLog(SPECS, clock, TOMBSTONE_MS))
        yield backend
        backend.close()


class TestEmbeddedLog(LogContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        clock = DrivenClock(START_MS)
        backend = Backend(
            clock, Capabilities(), lambda: EmbeddedLog(tmp_path / "log", SPECS, clock, tombstone_ms=TOMBSTONE_MS)
        )
        yield backend
        backend.close()


class TestEmbeddedLogWithoutTail(LogContract):
    """Every read comes from the file."""

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        clock = DrivenClock(START_MS)
        backend = Backend(
            clock,
            Capabilities(),
            lambda: EmbeddedLog(tmp_path, SPECS, clock, tombstone_ms=TOMBSTONE_MS, tail_bytes_max=0),
        )
        yield backend
        backend.close()
