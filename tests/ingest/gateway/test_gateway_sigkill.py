"""SIGKILL at any moment: what was acknowledged is in the log, and the order of ticks still holds."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingest.clock import WallClock
from ingest.events import Batch, Tick
from ingest.gateway.spool.log import SpoolingLog
from ingest.gateway.spool.store import Spool
from ingest.log.embedded import EmbeddedLog
from ingest.log.interface import TopicPartition
from ingest.log.specs import topic_specs
from ingest.metrics import Metrics
from ingest.topics import Topics
from support.gateway_rig import PARTITIONS, read_record
from support.spool_rig import eventually

ROOT = Path(__file__).parents[3]


def acknowledged_until_killed(folder: Path, base: int, alive_seconds: float, *more: str) -> list[int]:
    """Run a gateway, kill it while it works, and return the sequence numbers it acknowledged."""
    environment = dict(os.environ, PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    command = [sys.executable, "-m", "support.gateway_process", str(folder), str(base), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(alive_seconds)
        process.send_signal(signal.SIGKILL)
        said = first + process.stdout.read()
    # A line cut off by the kill was written after its acknowledgement too, but may have lost digits.
    return [int(line) for line in said.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.fault
def test_nothing_acknowledged_is_lost_when_the_gateway_is_killed(tmp_path: Path) -> None:
    chance = random.Random(5)
    expected: set[int] = set()
    for life in range(3):
        numbers = acknowledged_until_killed(tmp_path, life * 100_000_000, chance.uniform(0.1, 0.5))
        assert numbers, "the gateway acknowledged nothing"
        expected |= {number + i for number in numbers for i in range(5)}
    topics = Topics("live", PARTITIONS)
    log = EmbeddedLog(tmp_path / "log", topic_specs(topics), WallClock())
    found: list[int] = []
    for word in ("activity", "crashes"):
        for partition in range(PARTITIONS):
            source = TopicPartition(topics.name(word), partition)
            offset, end = log.bounds(source)
            tick_ms = 0
            while offset < end:
                for record in log.read(source, offset):
                    offset = record.offset + 1
                    value = read_record(record.value or b"")
                    if isinstance(value, Tick):
                        assert value.at_ms > tick_ms
                        tick_ms = value.at_ms
                    elif isinstance(value, Batch):
                        found += [report.seq for report in value.reports]
                        assert value.received_at_ms >= tick_ms
    log.close()
    assert expected <= set(found)
    assert len(found) == len(set(found)), "nobody posted twice, so nothing may be there twice"


@pytest.mark.fault
@pytest.mark.timeout(120)
def test_nothing_acknowledged_is_lost_with_a_spool_before_a_log_that_comes_and_goes(tmp_path: Path) -> None:
    """Kills at random moments: spooling, draining, going straight through, and between any two of these."""
    chance = random.Random(7)
    expected: set[int] = set()
    clock, topics = WallClock(), Topics("live", PARTITIONS)
    left = 0
    for life in range(6):
        numbers = acknowledged_until_killed(tmp_path, life * 100_000_000, chance.uniform(0.1, 1.2), "--spool")
        assert numbers, "the gateway acknowledged nothing"
        expected |= {number + i for number in numbers for i in range(5)}
        spool = Spool(tmp_path / "spool", 1 << 30, topics, clock)
        left += not spool.empty
        spool.close()
    assert left, "no kill left anything to drain: the test shows nothing"
    log = EmbeddedLog(tmp_path / "log", topic_specs(topics), clock)
    spool = Spool(tmp_path / "spool", 1 << 30, topics, clock)
    last = SpoolingLog(log, spool, Metrics(), after_seconds=5)
    eventually(lambda: spool.empty, 30)
    found: set[int] = set()
    for word in ("activity", "crashes"):
        for partition in range(PARTITIONS):
            source = TopicPartition(topics.name(word), partition)
            offset, end = log.bounds(source)
            tick_ms = 0
            while offset < end:
                for record in log.read(source, offset):
                    offset = record.offset + 1
                    value = read_record(record.value or b"")
                    if isinstance(value, Tick):
                        tick_ms = max(tick_ms, value.at_ms)
                    elif isinstance(value, Batch):
                        fresh = {report.seq for report in value.reports} - found
                        # What comes again lay before its tick the first time.
                        assert not fresh or value.received_at_ms >= tick_ms
                        found |= fresh
    last.close()
    assert expected <= found
