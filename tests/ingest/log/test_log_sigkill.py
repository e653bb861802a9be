"""SIGKILL at any moment: nothing acknowledged is lost, nothing is invented, no offset is given twice."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingest.clock import WallClock
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import TopicPartition
from ingest.log.schema import FILE_NAME
from support import log_writer

ROUNDS = 12
WRITERS = 3
NUMBERS_PER_ROUND = 1_000_000
REPOSITORY = Path(__file__).parents[3]


def _run_and_kill(directory: Path, first: int, after_seconds: float) -> list[list[int]]:
    """Run the writer, kill it, and return the acknowledgements it printed: writer, number, offsets."""
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
    command = [sys.executable, str(Path(log_writer.__file__)), str(directory), str(WRITERS), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(after_seconds)
        child.send_signal(signal.SIGKILL)
        lines = child.stdout.read().split(b"\n")
    assert child.returncode == -signal.SIGKILL
    return [[int(word) for word in line.split()] for line in lines if line]


def _check(directory: Path, acknowledged: dict[tuple[int, int], list[int]]) -> None:
    """Compare the log with all that was ever acknowledged."""
    log = EmbeddedLog(directory, log_writer.SPECS, WallClock())
    try:
        seen = []
        for partition in range(log_writer.PARTITIONS):
            source = TopicPartition("fault.events", partition)
            first, end = log.bounds(source)
            assert first == 0
            records: dict[int, tuple[int, int]] = {}
            offset = 0
            while got := log.read(source, offset, 1000):
                records |= {record.offset: log_writer.parse(record.value or b"") for record in got}
                offset = got[-1].offset + 1
            assert list(records) == list(range(end)), "dense and in order, nothing twice"
            for writer in range(WRITERS):
                numbers = [number for owner, number in records.values() if owner == writer]
                assert numbers == sorted(set(numbers)), "each writer's order is kept"
            for (writer, number), offsets in acknowledged.items():
                assert records[offsets[partition]] == (writer, number), (
                    "what was acknowledged is where it was said to be"
                )
            seen.append(set(records.values()))
        assert seen[0] == seen[1] == seen[2], "an append is whole or absent"
        assert len(seen[0]) <= len(acknowledged) + ROUNDS * WRITERS, "at most one unanswered append a writer and round"
        state = log.read(TopicPartition("fault.state", 0), 0, 10_000, 1 << 30)
        newest = {record.key: log_writer.parse(record.value or b"") for record in state}
        assert set(newest) == {b"%d" % (number % 10) for _, number in seen[0]}
        assert {key for key, (_, number) in newest.items() if b"%d" % (number % 10) == key} == set(newest)
    finally:
        log.close()


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(110)
def test_sigkill_loses_and_invents_nothing(tmp_path: Path) -> None:
    generator = random.Random(20240719)
    acknowledged: dict[tuple[int, int], list[int]] = {}
    for turn in range(ROUNDS):
        lines = _run_and_kill(tmp_path / "log", turn * NUMBERS_PER_ROUND, generator.uniform(0.02, 0.3))
        before = len(acknowledged)
        acknowledged |= {(line[0], line[1]): line[2:] for line in lines}
        assert len(acknowledged) == before + len(lines)
        _check(tmp_path / "log", acknowledged)
    assert len(acknowledged) > ROUNDS * WRITERS, "the child wrote enough for the kills to mean something"
    with sqlite3.connect(tmp_path / "log" / FILE_NAME) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
